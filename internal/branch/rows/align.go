package rows

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// aligner brings recorded rows into the order of a table's columns of now.
type aligner struct {
	k        *collection
	t        *table
	defaults []sqlite.Value
	last     []string // the columns of the last record
	at       []int    // where each of the table's columns stands in it; -1
}

// align is a recorded row in the order of the table's columns; nil if there was none. A column that was added later holds its default for it.
func (a *aligner) align(r *store.RecordedRow) (*row, error) {
	if !r.There {
		return nil, nil
	}
	if a.at == nil || !slices.Equal(a.last, r.Columns) {
		a.last, a.at = r.Columns, make([]int, len(a.t.columns))
		for i, c := range a.t.columns {
			a.at[i] = slices.IndexFunc(r.Columns, func(o string) bool { return o != "" && strings.EqualFold(o, c) })
		}
	}
	out := &row{values: make([]sqlite.Value, len(a.at))}
	for i, at := range a.at {
		if at >= 0 {
			out.values[i] = r.Old[at]
			continue
		}
		if a.defaults == nil {
			var err error
			if a.defaults, err = a.k.defaultsOf(a.t); err != nil {
				return nil, err
			}
		}
		out.values[i] = a.defaults[i]
	}
	return out, nil
}

// defaultsOf are the defaults of a table's columns, as they keep them.
func (k *collection) defaultsOf(t *table) ([]sqlite.Value, error) {
	values := make([]sqlite.Value, len(t.columns))
	for i, def := range t.defs {
		if def == "" {
			continue
		}
		x := "x"
		switch d := strings.ToUpper(t.types[i]); { // https://sqlite.org/datatype3.html, section 3.1
		case strings.Contains(d, "INT"):
		case strings.Contains(d, "CHAR"), strings.Contains(d, "CLOB"), strings.Contains(d, "TEXT"):
			x = "CASE WHEN typeof(x) IN ('integer','real') THEN CAST(x AS TEXT) ELSE x END"
		case strings.Contains(d, "REAL"), strings.Contains(d, "FLOA"), strings.Contains(d, "DOUB"):
			x = "CASE typeof(x) WHEN 'integer' THEN CAST(x AS REAL) ELSE x END"
		}
		_, err := k.side.run("SELECT "+x+" FROM (SELECT "+def+" AS x)", nil, func(st *sqlite.Stmt) error {
			values[i] = st.Column(0)
			values[i].Bytes = slices.Clone(values[i].Bytes)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return values, nil
}

// virtual collects the changes of a virtual table: what it kept in its shadow tables tells how its rows were.
func (k *collection) virtual(t *table) error {
	n, err := k.begin(t)
	if err != nil {
		return err
	}
	suffix, former := "_content", k.formerText
	if t.kind == spatial {
		suffix, former = "_rowid", k.formerSpatial
	}
	shadow, ok := k.side.shapes[sqlite.Fold(t.name+suffix)]
	if !ok {
		return &Problem{Table: t.name, Message: "it has no table " + t.name + suffix}
	}
	return k.records(shadow.Name, func(r *store.RecordedRow) error {
		var base *row
		if r.There {
			values, err := former(t, r)
			if err != nil {
				return err
			}
			base = &row{r.Key.Int, values}
		}
		now, err := k.side.at(t, r.Key.Int)
		if err != nil {
			return err
		}
		return k.emit(t, n, []sqlite.Value{r.Key}, true, base, now)
	})
}

// madeAnew says of a virtual table that nobody can bring its rows of then into its columns of now.
func madeAnew(t *table) error {
	return &Problem{Table: t.name, Message: "it was made anew with other columns"}
}

// formerText is a row of FTS5's as its content table had it.
func (k *collection) formerText(t *table, r *store.RecordedRow) ([]sqlite.Value, error) {
	values := make([]sqlite.Value, len(t.columns))
	for i := range values {
		at := slices.Index(r.Columns, fmt.Sprintf("c%d", i))
		if at < 0 {
			return nil, madeAnew(t)
		}
		values[i] = r.Old[at]
	}
	return values, nil
}

// formerSpatial is a row of R-Tree's: its coordinates stand in a node, which was recorded too if it has changed since.
func (k *collection) formerSpatial(t *table, r *store.RecordedRow) ([]sqlite.Value, error) {
	old := func(name string) (sqlite.Value, error) {
		if at := slices.Index(r.Columns, name); at >= 0 {
			return r.Old[at], nil
		}
		return sqlite.Value{}, madeAnew(t)
	}
	nodeno, err := old("nodeno")
	if err != nil {
		return nil, err
	}
	shadow := k.side.shapes[sqlite.Fold(t.name+"_node")].Name
	var node []byte
	recorded, err := k.branch.RecordedRow(shadow, nodeno)
	switch {
	case err != nil:
		return nil, err
	case recorded != nil && recorded.There:
		if at := slices.Index(recorded.Columns, "data"); at >= 0 {
			node = recorded.Old[at].Bytes
		}
	case recorded == nil:
		_, err = k.side.run("SELECT data FROM main."+sqlite.Quote(shadow)+" WHERE nodeno=?", []sqlite.Value{nodeno}, func(st *sqlite.Stmt) error {
			node = slices.Clone(st.Column(0).Bytes)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	args := k.branch.ModuleArgs(t.name)
	extra := 0
	for _, arg := range args[min(3, len(args)):] {
		if strings.HasPrefix(strings.TrimSpace(arg), "+") {
			extra++
		}
	}
	coords := len(t.columns) - 1 - extra
	whole := strings.EqualFold(args[0], "rtree_i32")
	// A node: its depth, the number of its cells, and these: a rowid and the coordinates.
	size := 8 + 4*coords
	if len(node) < 4 {
		return nil, errFrame
	}
	cells := node[4:]
	for range binary.BigEndian.Uint16(node[2:]) {
		if len(cells) < size {
			return nil, errFrame
		}
		if int64(binary.BigEndian.Uint64(cells)) != r.Key.Int {
			cells = cells[size:]
			continue
		}
		values := []sqlite.Value{r.Key}
		for i := range coords {
			bits := binary.BigEndian.Uint32(cells[8+4*i:])
			if whole {
				values = append(values, intValue(int64(int32(bits))))
			} else {
				values = append(values, sqlite.Value{Kind: sqlite.Real, Float: float64(math.Float32frombits(bits))})
			}
		}
		for i := range extra {
			v, err := old(fmt.Sprintf("a%d", i))
			if err != nil {
				return nil, err
			}
			values = append(values, v)
		}
		return values, nil
	}
	return nil, errFrame
}
