package store

import "github.com/persqld/persqld/internal/sqlite"

// Note is what somebody wrote about a table or a column.
type Note struct {
	Table  string // empty is the database itself
	Column string // empty is the table itself
	Text   string // empty takes the note away
}

// Notes are all notes of the database.
func (tx *Tx) Notes() ([]Note, error) {
	have, err := tx.has(tx.w.store.system.notes)
	if err != nil || !have {
		return nil, err
	}
	var notes []Note
	err = tx.own("SELECT tbl, col, note FROM "+tx.w.store.system.notes.Name+" ORDER BY tbl, col", nil, func(s *sqlite.Stmt) error {
		notes = append(notes, Note{string(s.Column(0).Bytes), string(s.Column(1).Bytes), string(s.Column(2).Bytes)})
		return nil
	})
	return notes, err
}

// SetNote changes one note. Names are kept as they are given; they compare without case, like SQLite's.
func (tx *Tx) SetNote(n Note) error {
	if err := tx.need(tx.w.store.system.notes); err != nil {
		return err
	}
	at := []sqlite.Param{textParam(n.Table), textParam(n.Column)}
	if err := tx.own("DELETE FROM "+tx.w.store.system.notes.Name+" WHERE tbl=? COLLATE NOCASE AND col=? COLLATE NOCASE", at, nil); err != nil || n.Text == "" {
		return err
	}
	return tx.own("INSERT INTO "+tx.w.store.system.notes.Name+"(tbl, col, note) VALUES(?,?,?)", append(at, textParam(n.Text)), nil)
}
