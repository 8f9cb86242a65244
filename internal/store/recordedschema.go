package store

import (
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// What a change of the schema does to a recording. SQLite's hook tells nothing of it: a table that is dropped takes its rows along unseen, and CREATE
// TABLE … AS fills one unseen. One statement makes one such change, so the schema before and behind it says which.

// drawn is what the recording remembers of the schema around a statement that changes it: the tables, by name.
type drawn map[string]*drawnTable

type drawnTable struct {
	root    int64
	columns []string
}

func (tx *Tx) draw() (drawn, error) {
	d := drawn{}
	err := tx.quietly("SELECT m.name, m.rootpage, x.name FROM main.sqlite_schema m, pragma_table_xinfo(m.name) x WHERE m.type='table' AND m.rootpage>0 AND x.hidden=0 AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY m.rowid, x.cid", nil,
		func(s *sqlite.Stmt) {
			name := string(s.Column(0).Bytes)
			t := d[name]
			if t == nil {
				t = &drawnTable{root: s.Column(1).Int}
				d[name] = t
			}
			t.columns = append(t.columns, string(s.Column(2).Bytes))
		})
	return d, err
}

// beforeAltering is called before a statement that may change the schema. The rows of a table that it drops are recorded as they are: who fills another
// under that name, as a rebuild by hand does, has changed each of them.
func (tx *Tx) beforeAltering(s *sqlite.Stmt) (drawn, error) {
	tx.a.rec.forget()
	d, err := tx.draw()
	if err != nil {
		return nil, tx.check(err)
	}
	accesses := s.Accesses
	if accesses == nil { // the server's own: nobody asked what it touches
		if accesses, err = s.AccessesOf(s.SQL()); err != nil {
			return nil, tx.check(err)
		}
	}
	for i := range accesses {
		switch a := &accesses[i]; a.Action {
		case sqlite.DropTable, sqlite.DropVTable:
			for name := range d {
				if strings.EqualFold(name, a.Name) || a.Action == sqlite.DropVTable && strings.EqualFold(sqlite.ShadowOf(name), a.Name) {
					if err := tx.recordAll(name, true); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return d, nil
}

// afterAltering brings the recording up to what the statement made of the schema.
func (tx *Tx) afterAltering(before drawn) error {
	tx.a.rec.forget()
	after, err := tx.draw()
	if err != nil {
		return tx.check(err)
	}
	for name, was := range before {
		now := after[name]
		if now == nil {
			for to, t := range after {
				if before[to] == nil && t.root == was.root && slices.Equal(t.columns, was.columns) {
					if err := tx.renameRecorded(name, to); err != nil {
						return tx.check(err)
					}
					before[to] = t
				}
			}
			continue
		}
		if !slices.Equal(now.columns, was.columns) {
			if err := tx.redrawRecorded(name, was.columns, now.columns); err != nil {
				return tx.check(err)
			}
		}
	}
	for name := range after {
		if before[name] == nil {
			if err := tx.recordAll(name, false); err != nil { // CREATE TABLE … AS; else it is empty
				return err
			}
		}
	}
	return nil
}

// renameRecorded gives what is recorded of a table its new name. Where a table of that name was dropped before, its rows are recorded already, and count.
func (tx *Tx) renameRecorded(from, to string) error {
	names := []sqlite.Param{textParam(to), textParam(from)}
	for _, c := range []struct {
		sql    string
		params []sqlite.Param
	}{
		{"UPDATE OR IGNORE " + changedTable.Name + " SET tbl=?1 WHERE tbl=?2", names},
		{"DELETE FROM " + changedTable.Name + " WHERE tbl=?", names[1:]},
		// A layout that both have stays the other's, and its rows find it by its number.
		{"UPDATE OR IGNORE " + layoutTable.Name + " SET tbl=?1 WHERE tbl=?2", names},
		{"INSERT OR REPLACE INTO " + branchTable.Name + " SELECT '" + renamed + "'||?1, coalesce((SELECT value FROM " + branchTable.Name + " WHERE name='" + renamed + "'||?2), ?2)", names},
		{"DELETE FROM " + branchTable.Name + " WHERE name='" + renamed + "'||?", names[1:]},
	} {
		if err := tx.hush(c.sql, c.params); err != nil {
			return err
		}
	}
	return nil
}

// hush is quietly for a statement that writes.
func (tx *Tx) hush(sql string, params []sqlite.Param) error {
	return tx.a.conn.Hidden(func() error { return tx.quietly(sql, params, nil) })
}

// redrawRecorded brings the names in a table's layouts up to a column that was renamed or dropped. One that was added has no old values.
func (tx *Tx) redrawRecorded(table string, was, now []string) error {
	from, to := "", ""
	switch {
	case len(now) == len(was):
		for i := range was {
			if was[i] != now[i] {
				from, to = was[i], now[i]
			}
		}
	case len(now) < len(was):
		for i := range was {
			if i >= len(now) || was[i] != now[i] {
				from = was[i]
				break
			}
		}
	default:
		return nil
	}
	type layout struct {
		id   int64
		cols []byte
	}
	var layouts []layout
	err := tx.quietly("SELECT id, cols FROM "+layoutTable.Name+" WHERE tbl=?", []sqlite.Param{textParam(table)}, func(s *sqlite.Stmt) {
		layouts = append(layouts, layout{s.Column(0).Int, slices.Clone(s.Column(1).Bytes)})
	})
	if err != nil {
		return err
	}
	for _, l := range layouts {
		names, err := namesOf(l.cols)
		if err != nil {
			return err
		}
		for i := range names {
			if names[i] == from {
				names[i] = to
			}
		}
		if err := tx.hush("UPDATE OR IGNORE "+layoutTable.Name+" SET cols=? WHERE id=?", []sqlite.Param{blobParam(layoutOf(names)), intParam(l.id)}); err != nil {
			return err
		}
	}
	return nil
}

// recordAll records every row of a table: as it is, or, of a new table, that it wasn't there.
func (tx *Tx) recordAll(table string, there bool) error {
	r, conn := tx.a.rec, tx.a.conn
	shapes, err := conn.Shapes()
	if err != nil {
		return tx.check(err)
	}
	shape := shapes[sqlite.Fold(table)]
	s := sqlite.RowShape{Shadow: shape.Shadow}
	var keys [][2]int // rank in the primary key, column
	err = tx.quietly("SELECT name, hidden, pk FROM pragma_table_xinfo(?) ORDER BY cid", []sqlite.Param{textParam(table)}, func(st *sqlite.Stmt) {
		if rank := int(st.Column(2).Int); rank > 0 && !shape.Rowid {
			keys = append(keys, [2]int{rank, len(s.Columns)})
		}
		s.Columns = append(s.Columns, sqlite.RowColumn{Name: string(st.Column(0).Bytes), Generated: st.Column(1).Int != 0})
	})
	if err != nil {
		return tx.check(err)
	}
	slices.SortFunc(keys, func(a, b [2]int) int { return a[0] - b[0] })
	for _, k := range keys {
		s.Key = append(s.Key, k[1])
	}
	t := newRecordedTable(table, s)
	if t.skip {
		return nil
	}
	columns := []string{"0"}
	if shape.Rowid {
		name := RowidName(t.names)
		if name == "" {
			return tx.check(&sqlite.Error{Code: sqlite.CodeError, Message: "the columns of table " + table + " take every name of the rowid, by which its changes would be recorded", Offset: -1})
		}
		columns[0] = name
	}
	for _, c := range s.Columns {
		columns = append(columns, Quote(c.Name))
	}
	st, err := conn.Own("SELECT " + strings.Join(columns, ", ") + " FROM main." + Quote(table))
	if err != nil {
		return tx.check(err)
	}
	defer st.Done()
	value := func(i int) (sqlite.Value, bool) { return st.Column(i + 1), true }
	old := value
	if !there {
		old = nil
	}
	err = steps(st, func(st *sqlite.Stmt) error {
		r.add(t, st.Column(0).Int, value, old)
		return r.err
	})
	if err != nil {
		r.clear()
		return tx.check(err)
	}
	return tx.record()
}

// RowidName is a name by which the rowid of a table with these columns can be read; "" if they take them all.
func RowidName(columns []string) string {
	for _, name := range []string{"rowid", "_rowid_", "oid"} {
		if !slices.ContainsFunc(columns, func(c string) bool { return strings.EqualFold(c, name) }) {
			return name
		}
	}
	return ""
}

// Quote makes a name of SQL's of any text.
func Quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
