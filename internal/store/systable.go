package store

import (
	"fmt"
	"maps"
	"strings"

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
	Keep              // a database that is restored keeps what it has now
)

// SystemTable is one of the server's own tables in a tenant's file. Such a table can't be altered later, so its name
// ends in a version, and the next version is another table.
type SystemTable struct {
	Name    string
	Columns string // as CREATE TABLE has them; PRIMARY KEY and UNIQUE are its only indexes
	Options string // what stands behind them, such as WITHOUT ROWID
	// Former are the earlier versions that a file may still hold. The first request that needs the table takes over what
	// the former one holds and drops that, in its own transaction. A version once released stays here.
	Former []FormerTable

	Branch  Fate // a branch or fork of the database
	Restore Fate // the database as it was at an earlier moment
	Export  Fate // a file that leaves the server
	Import  Fate // a file that comes in: Carry would trust a stranger's table
	Metered bool // its pages count as the tenant's storage
}

// create is the statement that makes the table.
func (t *SystemTable) create() string {
	sql := "CREATE TABLE " + t.Name + "(" + t.Columns + ")"
	if t.Options != "" {
		sql += " " + t.Options
	}
	return sql
}

// FormerTable is an earlier version of a system table.
type FormerTable struct {
	Name string
	Take string // a SELECT of its rows as the present version has them
}

// The system tables. They are made when they are first needed.
var (
	keptTable = SystemTable{
		Name: SystemPrefix + "kept_v1",
		// Ordered by time through the second index, so that a sweep reads only what it deletes.
		Columns: "scope BLOB NOT NULL UNIQUE, body BLOB NOT NULL, answer BLOB NOT NULL, kept_at INTEGER NOT NULL, UNIQUE(kept_at, scope)",
		// A key belongs to a token and this database: replayed in a branch it would answer for a write that the
		// branch never saw being made; in a restored database it would deny one that was undone.
		// A restore undoes writes, not that they were answered: sent again, one is answered as it was.
		Branch: Leave, Restore: Keep, Export: Leave, Import: Leave,
	}
	snapshotsTable = SystemTable{
		Name:    SystemPrefix + "snapshots_v1",
		Columns: "seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, label TEXT NOT NULL, position INTEGER NOT NULL, created_at INTEGER NOT NULL, automatic INTEGER NOT NULL",
		// Labels of positions of this database's own history, which a restore adds to.
		Branch: Leave, Restore: Keep, Export: Leave, Import: Keep,
	}
	notesTable = SystemTable{
		Name:    SystemPrefix + "notes_v1",
		Columns: "tbl TEXT NOT NULL, col TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY(tbl, col)",
		// What people wrote about their tables is theirs.
		Branch: Carry, Restore: Carry, Export: Leave, Import: Leave, Metered: true,
	}
)

// SystemTables is the registry: every table of the server's that a tenant's file may hold.
func SystemTables() []SystemTable {
	return append([]SystemTable{keptTable, notesTable, snapshotsTable, meterTable, spentTable, feedTable}, recordingTables()...)
}

// systemSet are the system tables as a store knows them.
type systemSet struct{ kept, notes, snapshots, meter SystemTable }

func (s *systemSet) all() []SystemTable {
	return append([]SystemTable{s.kept, s.notes, s.snapshots, s.meter, spentTable, feedTable}, recordingTables()...)
}

// check returns a *NewerError for a table that this version doesn't know.
func (s *systemSet) check(name string) error {
	e := &NewerError{Table: name}
	for _, t := range s.all() {
		if t.Name == name {
			return nil
		}
		for _, f := range t.Former {
			if f.Name == name {
				return nil
			}
		}
		if family(t.Name) == family(name) {
			e.Known = t.Name
		}
	}
	return e
}

// CheckSystemTable returns a *NewerError for a table that this version doesn't know, among those whose names begin with
// SystemPrefix.
func CheckSystemTable(name string) error {
	set := systemSet{keptTable, notesTable, snapshotsTable, meterTable}
	return set.check(strings.ToLower(name))
}

// family is a table's name without its version.
func family(name string) string {
	if i := strings.LastIndex(name, "_v"); i >= 0 {
		return name[:i]
	}
	return name
}

// NewerError is returned for a database whose file a newer version of the server wrote: it holds a system table that
// this version doesn't know. The file is left as it is.
type NewerError struct {
	Table string // the one that isn't known
	Known string // the version of it that is; empty if none is
}

// Error names both.
func (e *NewerError) Error() string {
	known := "no such table"
	if e.Known != "" {
		known = e.Known
	}
	return fmt.Sprintf("the database's file is of a newer version of the server: it holds %s, this version knows %s", e.Table, known)
}

// tableSet remembers which system tables a file has.
type tableSet struct{ known map[string]bool }

// look reads which system tables a file has that was just opened. It returns a *NewerError if this version must leave the
// file alone.
func (t *tableSet) look(conn *sqlite.Conn, set *systemSet) error {
	names, err := conn.TableNames(SystemPrefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := set.check(name); err != nil {
			return err
		}
	}
	t.learn(names)
	return nil
}

// none is what the file of most databases has.
var none = map[string]bool{}

func (t *tableSet) learn(names []string) {
	t.known = none
	if len(names) > 0 {
		t.known = make(map[string]bool, len(names))
		for _, name := range names {
			t.known[name] = true
		}
	}
}

// add makes a map of its own: most databases share none.
func (t *tableSet) add(name string) {
	known := maps.Clone(t.known)
	if known == nil {
		known = map[string]bool{}
	}
	known[name] = true
	t.known = known
}

// forget is called when a rollback may have taken a table away.
func (t *tableSet) forget() { t.known = nil }

// has tells whether the file has a system table, in this version of it: of an earlier one the content is taken over.
func (tx *Tx) has(t SystemTable) (bool, error) {
	if tx.over() {
		return false, errEnded
	}
	if tx.a.tables.known == nil {
		// By a statement: it notices where a rollback has left SQLite with a schema that isn't the file's any more.
		var names []string
		err := tx.own(`SELECT name FROM sqlite_schema WHERE type='table' AND name LIKE 'sqlite\_persql\_%' ESCAPE '\'`, nil, func(s *sqlite.Stmt) error {
			names = append(names, strings.ToLower(string(s.Column(0).Bytes)))
			return nil
		})
		if err != nil {
			return false, fmt.Errorf("look for system tables: %w", err)
		}
		tx.a.tables.learn(names)
	}
	if tx.a.tables.known[t.Name] {
		return true, nil
	}
	for _, f := range t.Former {
		if tx.a.tables.known[f.Name] {
			return true, tx.takeOver(t, f)
		}
	}
	return false, nil
}

// need makes a system table if the file doesn't have it, as part of what the request writes.
func (tx *Tx) need(t SystemTable) error {
	have, err := tx.has(t)
	if err != nil || have {
		return err
	}
	return tx.make(t)
}

func (tx *Tx) make(t SystemTable) error {
	if err := tx.mark(); err != nil {
		return err
	}
	if err := tx.reserved(func(c *sqlite.Conn) error { return c.CreateReserved(t.create()) }); err != nil {
		return fmt.Errorf("create table %s: %w", t.Name, err)
	}
	tx.a.tables.add(t.Name)
	return nil
}

// takeOver makes the present version of a system table of an earlier one.
func (tx *Tx) takeOver(t SystemTable, f FormerTable) error {
	if err := tx.make(t); err != nil {
		return err
	}
	if err := tx.own("INSERT INTO "+t.Name+" "+f.Take, nil, nil); err != nil {
		return fmt.Errorf("take over table %s: %w", f.Name, err)
	}
	if err := tx.reserved(func(c *sqlite.Conn) error { return c.DropReserved(f.Name) }); err != nil {
		return fmt.Errorf("drop table %s: %w", f.Name, err)
	}
	delete(tx.a.tables.known, f.Name)
	return nil
}

// reserved does something to a reserved table's schema.
func (tx *Tx) reserved(do func(*sqlite.Conn) error) error {
	conn := tx.a.conn
	conn.Watch(nil)
	err := do(conn)
	conn.Watch(tx.w.watch)
	return tx.check(err)
}

// own runs one of the actor's own statements with parameters. It is not a statement of the request: neither its
// count nor its time limit know of it.
func (tx *Tx) own(sql string, params []sqlite.Param, row func(*sqlite.Stmt) error) error {
	return tx.ownBy((*sqlite.Stmt).Done, sql, params, row)
}

// once is own for a statement that runs once while a database is open, or once an hour: kept, it would take as much memory as two pages.
func (tx *Tx) once(sql string, params []sqlite.Param, row func(*sqlite.Stmt) error) error {
	return tx.ownBy((*sqlite.Stmt).Discard, sql, params, row)
}

func (tx *Tx) ownBy(done func(*sqlite.Stmt), sql string, params []sqlite.Param, row func(*sqlite.Stmt) error) error {
	if tx.over() { // outside a transaction it would stand by itself
		return errEnded
	}
	conn := tx.a.conn
	s, err := conn.System(sql)
	if err != nil {
		return tx.check(err)
	}
	defer done(s)
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
	return conn.Hidden(func() error {
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
	})
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

// StoredBytes is what the database stores, in bytes: its file without the system tables that aren't the tenant's.
func (tx *Tx) StoredBytes() (int64, error) {
	system, err := tx.SystemPages()
	if err != nil {
		return 0, err
	}
	var all int64
	err = tx.once("PRAGMA page_count", nil, func(s *sqlite.Stmt) error {
		all = s.Column(0).Int
		return nil
	})
	return (all - system) * sqlite.PageSize, err
}

// SystemPages is the number of pages that system tables take which are not the tenant's storage.
func (tx *Tx) SystemPages() (int64, error) {
	var pages int64
	for _, t := range tx.w.store.system.all() {
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
		err = tx.once("SELECT coalesce(sum(d.pageno IS NOT NULL),0) FROM sqlite_schema s JOIN dbstat d ON d.name=s.name WHERE s.tbl_name=?",
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
