package feed

import (
	"strconv"
	"sync"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// Messages are the changes of one commit as listeners get them: one JSON object each, written once for all of them. They aren't changed once made.
type Messages struct {
	First, Last int64
	List        []Message

	batch  *store.Batch
	whole  *Messages // of which these are the last; nil if they are all
	size   int
	valued sync.Once
	values [][]byte // the objects with the values of rows, nil as long as nobody wants them
}

// Message is one change.
type Message struct {
	Seq   int64
	Table string // folded, as names compare
	Name  string // of the table, as it is written
	Kind  store.ChangeKind
	JSON  []byte
}

// At is when the changes were committed.
func (m *Messages) At() time.Time { return time.UnixMilli(m.batch.At) }

// render writes the messages of a batch.
func render(b *store.Batch) (*Messages, error) {
	m := &Messages{First: b.First, Last: b.Last, batch: b}
	var buf []byte
	var ends []int
	names := map[string]string{}
	err := b.Each(func(c *store.RowChange) error {
		folded, ok := names[c.Table]
		if !ok {
			folded = sqlite.Fold(c.Table)
			names[c.Table] = folded
		}
		buf = append(appendChange(buf, b, c), '}')
		ends = append(ends, len(buf))
		m.List = append(m.List, Message{Seq: c.Seq, Table: folded, Name: c.Table, Kind: c.Kind})
		return nil
	})
	if err != nil {
		return nil, err
	}
	at := 0
	for i, end := range ends {
		m.List[i].JSON = buf[at:end:end]
		at = end
	}
	m.size = len(buf) + b.Size() + 96*len(m.List)
	return m, nil
}

// WithRows is message i with the values of its row, where they were kept.
func (m *Messages) WithRows(i int) []byte {
	if m.whole != nil {
		return m.whole.WithRows(len(m.whole.List) - len(m.List) + i)
	}
	m.valued.Do(func() {
		// It was read once without an error.
		_ = m.batch.Each(func(c *store.RowChange) error {
			b := appendChange(nil, m.batch, c)
			b = appendRow(b, "new", c.Columns, c.New)
			b = appendRow(b, "old", c.Columns, c.Old)
			m.values = append(m.values, append(b, '}'))
			return nil
		})
	})
	return m.values[i]
}

// from is the messages from a change on.
func (m *Messages) from(seq int64) *Messages {
	return &Messages{First: seq, Last: m.Last, List: m.List[seq-m.First:], whole: m, size: m.size}
}

const timeFormat = "2006-01-02T15:04:05.000Z"

// appendChange writes a change without the brace at its end.
func appendChange(b []byte, batch *store.Batch, c *store.RowChange) []byte {
	b = append(b, `{"type":"change","table":`...)
	b = wire.AppendString(b, c.Table)
	b = append(b, `,"kind":"`...)
	b = append(b, c.Kind.Word()...)
	b = append(b, `","seq":`...)
	b = strconv.AppendInt(b, c.Seq, 10)
	b = append(b, `,"ts":"`...)
	b = time.UnixMilli(batch.At).UTC().AppendFormat(b, timeFormat)
	b = append(b, '"')
	if c.HasRowid {
		b = append(b, `,"rowid":`...)
		b = strconv.AppendInt(b, c.Rowid, 10)
	}
	return appendRow(b, "key", c.KeyNames, c.Key)
}

func appendRow(b []byte, name string, columns []string, values []sqlite.Value) []byte {
	if values == nil {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":{`...)
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = wire.AppendString(b, columns[i])
		b = append(b, ':')
		b = wire.AppendValue(b, v)
	}
	return append(b, '}')
}
