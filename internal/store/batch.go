package store

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/persqld/persqld/internal/sqlite"
)

// How changes stand in the journal, and how they are read.

// ChangeKind is what happened to a row, or to a table.
type ChangeKind uint8

// The kinds. UnknownChange says that rows of a table may have changed, and not which.
const (
	InsertChange ChangeKind = iota + 1
	UpdateChange
	DeleteChange
	SchemaChange
	UnknownChange
)

// Word is the kind as the contract calls it.
func (k ChangeKind) Word() string {
	switch k {
	case InsertChange:
		return "insert"
	case UpdateChange:
		return "update"
	case DeleteChange:
		return "delete"
	case SchemaChange:
		return "schema"
	}
	return "unknown"
}

// Batch is what one commit changed, in order. It isn't changed once made.
type Batch struct {
	First, Last int64 // the numbers of its changes
	At          int64 // Unix ms
	body        []byte
}

// Size is the bytes that it takes.
func (b *Batch) Size() int { return len(b.body) + 64 }

// RowChange is one change of a Batch. What it points to is the Batch's.
type RowChange struct {
	Seq      int64
	Kind     ChangeKind
	Table    string
	Rowid    int64
	HasRowid bool
	KeyNames []string // of a WITHOUT ROWID table
	Key      []sqlite.Value
	Columns  []string       // what New and Old are of
	New, Old []sqlite.Value // nil where there are none, or nobody wanted them
}

// The parts of an entry, beside its kind.
const (
	entryKind  = 0x07
	entryRowid = 0x08
	entryKey   = 0x10
	entryNew   = 0x20
	entryOld   = 0x40
)

// bodyForm is the first byte of a body; another form would have another.
const bodyForm = 1

// Each calls f for each change, in order.
func (b *Batch) Each(f func(*RowChange) error) error {
	p := parser{b: b.body}
	if p.byte() != bodyForm {
		return errEncoding
	}
	count, tables := p.uvarint(), p.uvarint()
	if count != uint64(b.Last-b.First+1) || tables > uint64(len(p.b)) {
		return errEncoding
	}
	type table struct {
		name      string
		keys, all []string
	}
	list := make([]table, tables)
	for i := range list {
		list[i] = table{name: p.text(), keys: p.texts(), all: p.texts()}
	}
	for seq := b.First; seq <= b.Last; seq++ {
		head := p.byte()
		at := p.uvarint()
		if p.bad || at >= tables {
			return errEncoding
		}
		t := &list[at]
		c := RowChange{Seq: seq, Kind: ChangeKind(head & entryKind), Table: t.name, Columns: t.all}
		if head&entryRowid != 0 {
			c.Rowid, c.HasRowid = p.varint(), true
		}
		for _, part := range []struct {
			bit   byte
			into  *[]sqlite.Value
			count int
		}{{entryKey, &c.Key, len(t.keys)}, {entryNew, &c.New, len(t.all)}, {entryOld, &c.Old, len(t.all)}} {
			if head&part.bit != 0 {
				*part.into = p.values(part.count)
			}
		}
		if c.Key != nil {
			c.KeyNames = t.keys
		}
		if p.bad {
			return errEncoding
		}
		if err := f(&c); err != nil {
			return err
		}
	}
	if len(p.b) > 0 {
		return errEncoding
	}
	return nil
}

// changesOf is how many changes a body has; 0 if it is damaged.
func changesOf(body []byte) int64 {
	p := parser{b: body}
	if p.byte() != bodyForm {
		return 0
	}
	n := p.uvarint()
	if p.bad || n > uint64(len(body)) {
		return 0
	}
	return int64(n)
}

// parser reads a body. Behind its end everything is zero, and it is bad.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) byte() byte {
	if len(p.b) == 0 {
		p.bad = true
		return 0
	}
	c := p.b[0]
	p.b = p.b[1:]
	return c
}

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	p.skip(n)
	return v
}

func (p *parser) varint() int64 {
	v, n := binary.Varint(p.b)
	p.skip(n)
	return v
}

func (p *parser) skip(n int) {
	if n <= 0 {
		p.bad, p.b = true, nil
		return
	}
	p.b = p.b[n:]
}

func (p *parser) bytes() []byte {
	n := p.uvarint()
	if n > uint64(len(p.b)) {
		p.bad, p.b = true, nil
		return nil
	}
	v := p.b[:n:n]
	p.b = p.b[n:]
	return v
}

func (p *parser) text() string { return string(p.bytes()) }

func (p *parser) texts() []string {
	n := p.uvarint()
	if n > uint64(len(p.b)) {
		p.bad, p.b = true, nil
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = p.text()
	}
	return list
}

var errCount = errors.New("a change has another number of values than its table columns")

func (p *parser) values(count int) []sqlite.Value {
	values, err := ParseValues(p.bytes())
	if err == nil && len(values) != count {
		err = errCount
	}
	if err != nil {
		p.bad = true
		return nil
	}
	return slices.Clip(values)
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendTexts(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}
