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
	row     int64    // of sqlite_schema, which a table keeps as long as it is there
	columns []string // generated ones too; none of a virtual table
}

const drawSQL = `SELECT m.name, m.rowid, x.name FROM main.sqlite_schema m LEFT JOIN pragma_table_xinfo(iif(m.rootpage>0, m.name, NULL)) x WHERE m.type='table' AND m.name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY m.rowid, x.cid`

// add takes a row of drawSQL.
func (d drawn) add(s *sqlite.Stmt) {
	name := string(s.Column(0).Bytes)
	t := d[name]
	if t == nil {
		t = &drawnTable{row: s.Column(1).Int}
		d[name] = t
	}
	if c := s.Column(2); c.Kind != sqlite.Null {
		t.columns = append(t.columns, string(c.Bytes))
	}
}

func (tx *Tx) draw() (drawn, error) {
	d := drawn{}
	err := tx.quietly(drawSQL, nil, d.add)
	return d, err
}

// nameOf is the name of the table in a row of the schema; "" if there is none.
func (d drawn) nameOf(row int64) string {
	for name, t := range d {
		if t.row == row {
			return name
		}
	}
	return ""
}

// find finds a table by its name as SQLite compares names.
func (d drawn) find(name string) (is string, columns []string) {
	for is, t := range d {
		if strings.EqualFold(is, name) {
			return is, t.columns
		}
	}
	return "", nil
}

// beforeAltering is called before a statement that may change the schema. The rows of a table that it drops are recorded as they are: who fills another
// under that name, as a rebuild by hand does, has changed each of them.
func (tx *Tx) beforeAltering(s *sqlite.Stmt) (drawn, error) {
	tx.a.rec.forget()
	d, err := tx.draw()
	if err == nil {
		err = tx.noteOrigins(d)
	}
	if err != nil || !tx.a.rec.rows {
		return d, tx.check(err)
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
				if !strings.EqualFold(name, a.Name) && (a.Action != sqlite.DropVTable || !strings.EqualFold(sqlite.ShadowOf(name), a.Name)) {
					continue
				}
				// Of a table that was made later nothing counts any more.
				if has, err := tx.hasOrigin(name); err != nil || !has {
					if err != nil {
						return nil, tx.check(err)
					}
					continue
				}
				if err := tx.recordAll(name, true); err != nil {
					return nil, err
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
	met := map[string]bool{} // names of now of tables that were there before
	for name, was := range before {
		to := after.nameOf(was.row)
		switch {
		case to == "":
			err = tx.endTable(name, after)
		case to != name:
			met[to] = true
			err = tx.moveTable(name, to, was.columns)
		default:
			met[name] = true
			if from, to := columnChange(was.columns, after[name].columns); from != "" {
				err = tx.moveColumn(name, from, to)
			}
		}
		if err != nil {
			return tx.check(err)
		}
	}
	for name, t := range after {
		if met[name] {
			continue
		}
		if err := tx.takePlace(name, t.columns); err != nil {
			return tx.check(err)
		}
		if tx.a.rec.rows {
			if err := tx.recordAll(name, false); err != nil { // CREATE TABLE … AS; else it is empty
				return err
			}
		}
	}
	return nil
}

// columnChange is the column that one statement has renamed, or dropped (to is ""). One that was added has no old values, and isn't told.
func columnChange(was, now []string) (from, to string) {
	switch {
	case len(now) == len(was):
		for i := range was {
			if was[i] != now[i] {
				return was[i], now[i]
			}
		}
	case len(now) < len(was):
		for i := range was {
			if i >= len(now) || was[i] != now[i] {
				return was[i], ""
			}
		}
	}
	return "", ""
}

// hush is quietly for a statement that writes.
func (tx *Tx) hush(sql string, params ...sqlite.Param) error {
	return tx.a.conn.Hidden(func() error { return tx.quietly(sql, params, nil) })
}

// moveRecords gives what is recorded of a table another name. or says whose rows count where that one has some of the same keys.
func (tx *Tx) moveRecords(or, from, to string) error {
	if !tx.a.rec.rows {
		return nil
	}
	if err := tx.hush("UPDATE "+or+" "+changedTable.Name+" SET tbl=?1 WHERE tbl=?2", textParam(to), textParam(from)); err != nil {
		return err
	}
	if err := tx.hush("DELETE FROM "+changedTable.Name+" WHERE tbl=?", textParam(from)); err != nil {
		return err
	}
	return tx.hush("UPDATE "+layoutTable.Name+" SET tbl=?1 WHERE tbl=?2", textParam(to), textParam(from))
}

// dropRecords forgets what is recorded of a table.
func (tx *Tx) dropRecords(table string) error {
	if !tx.a.rec.rows {
		return nil
	}
	for _, t := range []SystemTable{changedTable, layoutTable} {
		if err := tx.hush("DELETE FROM "+t.Name+" WHERE tbl=?", textParam(table)); err != nil {
			return err
		}
	}
	return nil
}

// renameInRecords brings the names in a table's layouts up to a column that was renamed or dropped.
func (tx *Tx) renameInRecords(table, from, to string) error {
	if !tx.a.rec.rows {
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
		i := slices.Index(names, from)
		if i < 0 {
			continue
		}
		names[i] = to
		if err := tx.hush("UPDATE "+layoutTable.Name+" SET cols=? WHERE id=?", blobParam(layoutOf(names)), intParam(l.id)); err != nil {
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
	if shape.Virtual {
		return nil // its shadow tables have the rows
	}
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
		columns = append(columns, sqlite.Quote(c.Name))
	}
	st, err := conn.Own("SELECT " + strings.Join(columns, ", ") + " FROM main." + sqlite.Quote(table))
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
