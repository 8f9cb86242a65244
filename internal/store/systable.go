package store

import (
	"fmt"

	"github.com/persqld/persqld/internal/sqlite"
)

// SystemPrefix begins the names of the server's own tables in a tenant's file. SQLite reserves it: the shell and
// schema tools skip such tables, and no statement of a client's can drop or index them.
const SystemPrefix = "sqlite_persql_"

// Fate is what becomes of a system table when its database is copied.
type Fate uint8

const (
	Leave Fate = iota // it stays behind: it belongs to this file alone
	Carry             // it goes along
)

// SystemTable is one of the server's own tables in a tenant's file. Such a table can't be altered later, so its name
// ends in a version.
type SystemTable struct {
	Name    string
	Columns string // as CREATE TABLE has them; PRIMARY KEY and UNIQUE are its only indexes

	Branch  Fate // a branch or fork of the database
	Restore Fate // the database as it was at an earlier moment
	Export  Fate // a file that leaves the server
	Import  Fate // a file that comes in: Carry would trust a stranger's table
	Metered bool // its pages count as the tenant's storage
}

// The system tables. They are made when they are first needed.
var (
	keptTable = SystemTable{
		Name: SystemPrefix + "kept_v1",
		// Ordered by time through the second index, so that a sweep reads only what it deletes.
		Columns: "scope BLOB NOT NULL UNIQUE, body BLOB NOT NULL, answer BLOB NOT NULL, kept_at INTEGER NOT NULL, UNIQUE(kept_at, scope)",
		// A key belongs to a token and this database: replayed in a branch it would answer for a write that the
		// branch never saw being made; in a restored database it would deny one that was undone.
		Branch: Leave, Restore: Leave, Export: Leave, Import: Leave,
	}
	notesTable = SystemTable{
		Name:    SystemPrefix + "notes_v1",
		Columns: "tbl TEXT NOT NULL, col TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY(tbl, col)",
		// What people wrote about their tables is theirs.
		Branch: Carry, Restore: Carry, Export: Leave, Import: Leave, Metered: true,
	}
)

// SystemTables is the registry: every table of the server's that a tenant's file may hold.
func SystemTables() []SystemTable { return []SystemTable{keptTable, notesTable} }

// tableSet remembers which system tables a file has.
type tableSet struct{ known map[string]bool }

// forget is called when a rollback may have taken a table away.
func (t *tableSet) forget() { t.known = nil }

// has tells whether the file has a system table.
func (tx *Tx) has(t SystemTable) (bool, error) {
	if tx.over() {
		return false, errEnded
	}
	if have, ok := tx.a.tables.known[t.Name]; ok {
		return have, nil
	}
	have := false
	err := tx.own("SELECT 1 FROM sqlite_schema WHERE type='table' AND name=?", []sqlite.Param{textParam(t.Name)}, func(*sqlite.Stmt) error {
		have = true
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("look for table %s: %w", t.Name, err)
	}
	if tx.a.tables.known == nil {
		tx.a.tables.known = map[string]bool{}
	}
	tx.a.tables.known[t.Name] = have
	return have, nil
}

// need makes a system table if the file doesn't have it, as part of what the request writes.
func (tx *Tx) need(t SystemTable) error {
	have, err := tx.has(t)
	if err != nil || have {
		return err
	}
	if err := tx.mark(); err != nil {
		return err
	}
	tx.a.conn.Watch(nil)
	err = tx.a.conn.CreateReserved("CREATE TABLE " + t.Name + "(" + t.Columns + ")")
	tx.a.conn.Watch(tx.w.watch)
	if err != nil {
		return tx.check(fmt.Errorf("create table %s: %w", t.Name, err))
	}
	tx.a.tables.known[t.Name] = true
	return nil
}

// own runs one of the actor's own statements with parameters. It is not a statement of the request: neither its
// count nor its time limit know of it.
func (tx *Tx) own(sql string, params []sqlite.Param, row func(*sqlite.Stmt) error) error {
	if tx.over() { // outside a transaction it would stand by itself
		return errEnded
	}
	conn := tx.a.conn
	s, err := conn.System(sql)
	if err != nil {
		return tx.check(err)
	}
	defer s.Done()
	if s.Writes {
		if err := tx.mark(); err != nil {
			return err
		}
	}
	conn.Watch(nil)
	defer conn.Watch(tx.w.watch)
	if err := s.Bind(params); err != nil {
		return err
	}
	for {
		more, err := s.Step()
		if err != nil {
			return tx.check(err)
		}
		if !more {
			return nil
		}
		if row != nil {
			if err := row(s); err != nil {
				return err
			}
		}
	}
}

func textParam(s string) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Text, Bytes: []byte(s)}}
}
func blobParam(b []byte) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Blob, Bytes: b}}
}
func intParam(n int64) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Integer, Int: n}}
}

// SystemPages is the number of pages that system tables take which are not the tenant's storage.
func (tx *Tx) SystemPages() (int64, error) {
	var pages int64
	for _, t := range SystemTables() {
		if t.Metered {
			continue
		}
		have, err := tx.has(t)
		if err != nil {
			return 0, err
		}
		if !have {
			continue
		}
		err = tx.own("SELECT coalesce(sum(d.pageno IS NOT NULL),0) FROM sqlite_schema s JOIN dbstat d ON d.name=s.name WHERE s.tbl_name=?",
			[]sqlite.Param{textParam(t.Name)}, func(s *sqlite.Stmt) error {
				pages += s.Column(0).Int
				return nil
			})
		if err != nil {
			return 0, err
		}
	}
	return pages, nil
}
