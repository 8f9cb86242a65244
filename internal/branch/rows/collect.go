package rows

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// Changes are the rows that a branch has changed since its fork: as they were, and as they are. They hold nothing of the branch's and can be merged, or
// looked at, as often as one likes. Close gives up what they hold.
type Changes struct {
	tables    []*table
	spool     *spool
	dropped   []string
	sequences map[string]int64 // AUTOINCREMENT's, of changed tables
	count     int64
}

// Close gives up the memory and the file.
func (c *Changes) Close() { c.spool.close() }

// Len is the number of changed rows.
func (c *Changes) Len() int64 { return c.count }

// Digest is the SHA-256 of all of it, in hexadecimal digits: other rows have another one.
func (c *Changes) Digest() (string, error) {
	sum := sha256.New()
	for _, t := range c.tables {
		fmt.Fprintf(sum, "%q %q;", t.name, t.columns)
	}
	fmt.Fprintf(sum, "%q", c.dropped)
	for _, name := range slices.Sorted(maps.Keys(c.sequences)) {
		fmt.Fprintf(sum, "%q %d;", name, c.sequences[name])
	}
	err := c.spool.each(func(frame []byte) error {
		fmt.Fprintf(sum, "%d:", len(frame))
		sum.Write(frame)
		return nil
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// change is one changed row.
type change struct {
	table   int
	key     []sqlite.Value
	plain   bool   // see table.keyOf
	rowid   int64  // the branch's
	indexed uint64 // which of the table's FTS5 tables have the branch's row
	base    []sqlite.Value
	branch  []sqlite.Value // nil: there is none
}

// chunk is how many records are read at a time.
const chunk = 256

// Collect reads a branch's changes, in one transaction of it. dir is for what doesn't fit in memory.
func Collect(b Branch, dir string) (c *Changes, err error) {
	s, err := newSide(b)
	if err != nil {
		return nil, err
	}
	defer s.close()
	c = &Changes{spool: newSpool(dir), sequences: map[string]int64{}}
	defer func() {
		if err != nil {
			c.Close()
			c = nil
		}
	}()
	names, err := b.RecordedTables()
	if err != nil {
		return c, err
	}
	k := &collection{Changes: c, side: s, branch: b}
	virtual := map[string]bool{}
	for _, name := range names {
		shape, ok := s.shapes[sqlite.Fold(name)]
		switch {
		case !ok:
			c.dropped = append(c.dropped, name)
		case shape.Shadow:
			virtual[sqlite.Fold(sqlite.ShadowOf(name))] = true
		default:
			t, err := s.table(name)
			if err != nil {
				return c, err
			}
			if err := k.ordinary(t); err != nil {
				return c, err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(virtual)) {
		shape, ok := s.shapes[name]
		if !ok || !shape.Virtual {
			continue
		}
		if content, _ := sqlite.ModuleOption(b.ModuleArgs(shape.Name), "content"); content != "" {
			if other, ok := s.shapes[sqlite.Fold(content)]; ok && !other.Virtual {
				continue // its content's rows bring it along
			}
			return c, &Problem{Table: shape.Name, Message: "its content is a view, or no table"}
		}
		t, err := s.table(name)
		if err != nil {
			return c, err
		}
		if err := k.virtual(t); err != nil {
			return c, err
		}
	}
	return c, nil
}

// collection is one Collect under way.
type collection struct {
	*Changes
	side   *side
	branch Branch
}

// records reads a table's records in order.
func (k *collection) records(table string, f func(*store.RecordedRow) error) error {
	var after *sqlite.Value
	for {
		rows, err := k.branch.RecordedRows(table, after, chunk)
		if err != nil {
			return err
		}
		for i := range rows {
			if err := f(&rows[i]); err != nil {
				return err
			}
		}
		if len(rows) < chunk {
			return nil
		}
		after = &rows[len(rows)-1].Key
	}
}

// set remembers keys by 128 bits of them.
type set struct {
	seeds [2]maphash.Seed
	keys  map[[2]uint64]struct{}
}

func newSet() *set {
	return &set{[2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, map[[2]uint64]struct{}{}}
}

func (s *set) of(key string) [2]uint64 {
	return [2]uint64{maphash.String(s.seeds[0], key), maphash.String(s.seeds[1], key)}
}
func (s *set) add(key string) { s.keys[s.of(key)] = struct{}{} }
func (s *set) has(key string) bool {
	_, ok := s.keys[s.of(key)]
	return ok
}

// begin adds a table to the changes.
func (k *collection) begin(t *table) (int, error) {
	k.tables = append(k.tables, t)
	if t.counts {
		_, err := k.side.run("SELECT seq FROM main.sqlite_sequence WHERE name=?", []sqlite.Value{textValue(t.name)}, func(st *sqlite.Stmt) error {
			k.sequences[t.name] = st.Column(0).Int
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return len(k.tables) - 1, nil
}

// ordinary collects the changes of an ordinary table. A record says how the row of a rowid was, or of a primary key where there is no rowid. A merge goes by the
// declared primary key, which may have moved to another rowid since: so first come the keys that were there at the fork, each with its row now, and then those that
// are new.
func (k *collection) ordinary(t *table) error {
	n, err := k.begin(t)
	if err != nil {
		return err
	}
	a := &aligner{k: k, t: t}
	was := newSet() // keys of the fork that the row now at the record's place does not have
	collated := t.rowid == "" && t.collated()
	fresh := false
	err = k.records(t.name, func(r *store.RecordedRow) error {
		base, err := a.align(r)
		if err != nil {
			return err
		}
		if base == nil {
			fresh = true
			return nil
		}
		if r.Key.Kind == sqlite.Integer {
			base.rowid = r.Key.Int
		} else if t.key == nil {
			return &Problem{Table: t.name, Message: "it was made anew without its primary key"}
		}
		key, plain := t.keyOf(base)
		now, err := k.side.find(t, key, plain)
		if err != nil {
			return err
		}
		canonical := t.canonical(key, plain)
		moved := collated || t.rowid != "" && t.key != nil && (now == nil || r.Key.Kind != sqlite.Integer || now.rowid != r.Key.Int)
		if moved {
			was.add(canonical)
			fresh = true
		}
		return k.emit(t, n, key, plain, base, now)
	})
	if err != nil || !fresh {
		return err
	}
	return k.records(t.name, func(r *store.RecordedRow) error {
		var now *row
		switch {
		case r.Key.Kind == sqlite.Integer && t.rowid != "":
			if r.There && t.key == nil {
				return nil
			}
			now, err = k.side.at(t, r.Key.Int)
		case r.Key.Kind == sqlite.Blob && t.rowid == "":
			if r.There && !collated {
				return nil
			}
			var key []sqlite.Value
			if key, err = store.ParseValues(r.Key.Bytes); err == nil && len(key) == len(t.key) {
				now, err = k.side.find(t, key, true)
			}
		default: // of an earlier table of that name; its rows of now have records of their own
			return nil
		}
		if err != nil || now == nil {
			return err
		}
		key, plain := t.keyOf(now)
		canonical := t.canonical(key, plain)
		if r.There {
			base, err := a.align(r)
			if err != nil {
				return err
			}
			if r.Key.Kind == sqlite.Integer {
				base.rowid = r.Key.Int
			}
			if had, wasPlain := t.keyOf(base); t.canonical(had, wasPlain) == canonical {
				return nil
			}
		}
		if was.has(canonical) {
			return nil
		}
		if collated {
			was.add(canonical)
		}
		return k.emit(t, n, key, plain, nil, now)
	})
}

// emit keeps a change, if it is one.
func (k *collection) emit(t *table, n int, key []sqlite.Value, plain bool, base, now *row) error {
	c := change{table: n, key: key, plain: plain}
	if base != nil {
		c.base, c.rowid = base.values, base.rowid
	}
	if now != nil {
		c.branch, c.rowid = now.values, now.rowid
	}
	if base == nil && now == nil || base != nil && now != nil && slices.EqualFunc(base.values, now.values, same) {
		return nil
	}
	for i, index := range t.indexes {
		if now == nil || i >= 64 {
			break
		}
		_, err := k.side.run("SELECT 1 FROM main."+sqlite.Quote(index+"_docsize")+" WHERE id=?", []sqlite.Value{intValue(now.rowid)}, func(*sqlite.Stmt) error {
			c.indexed |= 1 << i
			return nil
		})
		if err != nil {
			return err
		}
	}
	k.count++
	return k.spool.add(c.encode())
}

func (c *change) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(c.table))
	b = binary.AppendVarint(b, c.rowid)
	b = binary.AppendUvarint(b, c.indexed)
	flags := byte(0)
	if c.plain {
		flags |= 1
	}
	if c.base != nil {
		flags |= 2
	}
	if c.branch != nil {
		flags |= 4
	}
	b = binary.AppendUvarint(append(b, flags), uint64(len(c.key)))
	all := slices.Concat(c.key, c.base, c.branch)
	return store.AppendValues(b, all...)
}

var errFrame = errors.New("a kept change is damaged")

func (c *Changes) decode(b []byte) (ch change, err error) {
	n, size := binary.Uvarint(b)
	b = b[size:]
	rowid, size := binary.Varint(b)
	b = b[size:]
	indexed, size := binary.Uvarint(b)
	b = b[size:]
	ch = change{table: int(n), rowid: rowid, indexed: indexed, plain: b[0]&1 != 0}
	flags := b[0]
	b = b[1:]
	keys, size := binary.Uvarint(b)
	values, err := store.ParseValues(b[size:])
	if err != nil {
		return ch, err
	}
	want := int(keys)
	columns := len(c.tables[n].columns)
	if flags&2 != 0 {
		want += columns
	}
	if flags&4 != 0 {
		want += columns
	}
	if len(values) != want {
		return ch, errFrame
	}
	ch.key, values = values[:keys], values[keys:]
	if flags&2 != 0 {
		ch.base, values = values[:columns], values[columns:]
	}
	if flags&4 != 0 {
		ch.branch = values
	}
	return ch, nil
}
