package store

import (
	"slices"

	"github.com/persqld/persqld/internal/sqlite"
)

// Which of the fork's tables a table is, and which of its columns: SQLite keeps no history of names, so a recording does. It is a row of branchTable for each
// table that was there at the fork, by the name that it has now.

// Origin is what a table was at the fork.
type Origin struct {
	Table string // its name
	// Columns are the names that its columns had, by those that they have now. One that was added since isn't there.
	Columns map[string]string
}

// The rows of branchTable that tell of origins.
const (
	originsKnown = "origins" // that they are kept: 0 while each table is still its own, and 1 when rows tell
	originOf     = "table:"  // before the name of a table: its origin
	goneOf       = "gone:"   // before the name, in lower case, that a dropped table had at the fork: its origin as it was dropped, for one that is made in its place
	lostOf       = "lost:"   // likewise, where the name was another table's of the fork then: what was recorded of the dropped one is no more
)

func (o *Origin) param() sqlite.Param {
	names := []string{o.Table}
	for now, then := range o.Columns {
		names = append(names, now, then)
	}
	return blobParam(layoutOf(names))
}

func parseOrigin(b []byte) (o Origin, err error) {
	names, err := namesOf(b)
	if err != nil {
		return o, err
	}
	if len(names)%2 != 1 {
		return o, errEncoding
	}
	o = Origin{Table: names[0], Columns: map[string]string{}}
	for i := 1; i < len(names); i += 2 {
		o.Columns[names[i]] = names[i+1]
	}
	return o, nil
}

// originRows are the rows of branchTable for the origins of a file's tables: those that are given, else each is its own until the schema changes.
func originRows(origins map[string]Origin) [][]sqlite.Param {
	rows := [][]sqlite.Param{{textParam(originsKnown), intParam(int64(min(1, len(origins))))}}
	for name, o := range origins {
		rows = append(rows, []sqlite.Param{textParam(originOf + name), o.param()})
	}
	return rows
}

// noteOrigins notes that each table is its own, before the first change of the schema.
func (tx *Tx) noteOrigins(before drawn) error {
	noted := false
	err := tx.quietly("SELECT value FROM "+branchTable.Name+" WHERE name=?", []sqlite.Param{textParam(originsKnown)}, func(s *sqlite.Stmt) { noted = s.Column(0).Int != 0 })
	if err != nil || noted {
		return err
	}
	if err := tx.putNote(originsKnown, intParam(1)); err != nil {
		return err
	}
	for name, t := range before {
		o := Origin{name, map[string]string{}}
		for _, column := range t.columns {
			o.Columns[column] = column
		}
		if err := tx.putNote(originOf+name, o.param()); err != nil {
			return err
		}
	}
	return nil
}

// endOrigins forgets them.
func endOrigins(c *sqlite.Conn) error {
	return c.Exec("DELETE FROM " + branchTable.Name + " WHERE name='" + originsKnown + "' OR name LIKE '" + originOf + "%' OR name LIKE '" + goneOf + "%' OR name LIKE '" + lostOf + "%'")
}

// moveTable is for a table that got another name. An earlier table of that name was dropped. Where this one was there at the fork, a merge drops the earlier one too, and
// what was recorded of that is of no use. Else this one is made in the earlier one's place.
func (tx *Tx) moveTable(from, to string, columns []string) error {
	o, err := tx.takeOrigin(originOf + from)
	if err != nil {
		return err
	}
	if o == nil {
		if err := tx.moveRecords("OR IGNORE", from, to); err != nil {
			return err
		}
		return tx.takePlace(to, columns)
	}
	gone, err := tx.takeNote(goneOf + sqlite.Fold(to))
	if err != nil {
		return err
	}
	if gone != nil {
		if err := tx.putNote(lostOf+sqlite.Fold(to), intParam(1)); err != nil {
			return err
		}
	}
	if err := tx.dropRecords(to); err != nil {
		return err
	}
	if err := tx.moveRecords("OR IGNORE", from, to); err != nil {
		return err
	}
	return tx.putNote(originOf+to, o.param())
}

// endTable is for a table that was dropped; after is the schema without it. What was recorded of its rows stands under the name that it had at the fork from now on, for a table
// that is made in its place: before its end (the old one renamed, a new one made and filled, the old one dropped), or behind it.
func (tx *Tx) endTable(name string, after drawn) error {
	o, err := tx.takeOrigin(originOf + name)
	if err != nil {
		return err
	}
	if o == nil {
		return tx.dropRecords(name)
	}
	living, columns := after.find(o.Table)
	if living != "" {
		has, err := tx.hasOrigin(living)
		if err != nil {
			return err
		}
		if has { // another table's of the fork: a merge drops this one
			if err := tx.dropRecords(name); err != nil {
				return err
			}
			return tx.putNote(lostOf+sqlite.Fold(o.Table), intParam(1))
		}
	}
	to := o.Table
	if living != "" {
		to = living
	}
	if name != to {
		if err := tx.moveRecords("OR REPLACE", name, to); err != nil {
			return err
		}
	}
	if err := tx.putNote(goneOf+sqlite.Fold(o.Table), o.param()); err != nil || living == "" {
		return err
	}
	return tx.takePlace(living, columns)
}

// takePlace makes a new table the one of its name that was dropped, if one was: its columns are those of the same names.
func (tx *Tx) takePlace(name string, columns []string) error {
	lost, err := tx.takeNote(lostOf + sqlite.Fold(name))
	if err != nil {
		return err
	}
	if lost != nil && tx.a.rec.rows {
		return tx.endRows("table " + name + " was dropped, and its name was another table's before it was made anew")
	}
	o, err := tx.takeOrigin(goneOf + sqlite.Fold(name))
	if err != nil || o == nil {
		return err
	}
	if o.Table != name { // in other letters' case
		if err := tx.moveRecords("OR REPLACE", o.Table, name); err != nil {
			return err
		}
	}
	for now := range o.Columns {
		if !slices.Contains(columns, now) {
			delete(o.Columns, now)
		}
	}
	return tx.putNote(originOf+name, o.param())
}

// endRows ends the recording of rows, where it can't be exact any more. What is recorded until the next opening does no harm.
func (tx *Tx) endRows(why string) error { return tx.putNote("ended", textParam(why)) }

// moveColumn is for a column that was renamed, or dropped (to is "").
func (tx *Tx) moveColumn(table, from, to string) error {
	o, err := tx.takeOrigin(originOf + table)
	if err != nil {
		return err
	}
	if o != nil {
		then, there := o.Columns[from]
		delete(o.Columns, from)
		if there && to != "" {
			o.Columns[to] = then
		}
		if err := tx.putNote(originOf+table, o.param()); err != nil {
			return err
		}
	}
	return tx.renameInRecords(table, from, to)
}

// hasOrigin tells whether a table was there at the fork.
func (tx *Tx) hasOrigin(table string) (has bool, err error) {
	err = tx.quietly("SELECT 1 FROM "+branchTable.Name+" WHERE name=?", []sqlite.Param{textParam(originOf + table)}, func(*sqlite.Stmt) { has = true })
	return has, err
}

// takeNote reads and takes away a row of branchTable; nil if there is none.
func (tx *Tx) takeNote(name string) (value []byte, err error) {
	err = tx.quietly("SELECT value FROM "+branchTable.Name+" WHERE name=?", []sqlite.Param{textParam(name)}, func(s *sqlite.Stmt) {
		value = append([]byte{}, s.Column(0).Bytes...)
	})
	if err == nil && value != nil {
		err = tx.hush("DELETE FROM "+branchTable.Name+" WHERE name=?", textParam(name))
	}
	return value, err
}

func (tx *Tx) putNote(name string, value sqlite.Param) error {
	return tx.hush("INSERT OR REPLACE INTO "+branchTable.Name+" VALUES(?,?)", textParam(name), value)
}

func (tx *Tx) takeOrigin(note string) (*Origin, error) {
	b, err := tx.takeNote(note)
	if err != nil || b == nil {
		return nil, err
	}
	o, err := parseOrigin(b)
	return &o, err
}
