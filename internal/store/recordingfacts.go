package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// RecordingFacts are what a database that records knows of its fork.
type RecordingFacts struct {
	Parent    string // the database that it was forked from
	Position  uint64 // of the parent's history, that it began as; 0 where none is kept
	CreatedAt int64  // Unix ms
	Schema    string // the schema at that moment, in the words of whoever merges

	// Ended says why changes are no longer recorded: then the rows can't be merged. Empty while they are.
	Ended string
	// Tables are what the tables were at the fork, by their names now; one that was made later isn't there. Empty while each is its own, since the schema never changed;
	// nil if it isn't known. A branch that is made of another takes that one's.
	Tables map[string]Origin
}

// beginRecording makes a database's file record what changes in it from its next opening on. What it recorded before, for a fork of its own, goes.
func beginRecording(c *sqlite.Conn, f RecordingFacts) error {
	tables := recordingTables()
	create := make([]string, len(tables))
	for i, t := range tables {
		if err := dropTable(c, t); err != nil {
			return err
		}
		create[i] = t.create()
	}
	facts := [][]sqlite.Param{
		{textParam("parent"), textParam(f.Parent)},
		{textParam("position"), textParam(strconv.FormatUint(f.Position, 10))},
		{textParam("created"), intParam(f.CreatedAt)},
		{textParam("schema"), textParam(f.Schema)},
	}
	if f.Ended != "" {
		facts = append(facts, []sqlite.Param{textParam("ended"), textParam(f.Ended)})
	}
	if err := c.Exec("BEGIN"); err != nil {
		return err
	}
	// The rows are put in under the same switches: else all of the schema would be read once more in between.
	err := c.WriteSchema(func() error {
		for _, sql := range create {
			if err := c.Exec(sql); err != nil {
				return err
			}
		}
		return insertRows(c, branchTable, append(facts, originRows(f.Tables)...))
	})
	if err != nil {
		return err
	}
	return c.Exec("COMMIT")
}

// endRecording notes in a file that is about to take a database's place that it isn't what was recorded.
func endRecording(path, why string) error {
	err := withScratch(path, func(c *sqlite.Conn) error {
		names, err := c.TableNames(SystemPrefix)
		if err != nil || !slices.Contains(names, branchTable.Name) {
			return err
		}
		if err := execute(c, "INSERT OR REPLACE INTO "+branchTable.Name+" VALUES('ended',?)", []sqlite.Param{textParam(why)}); err != nil {
			return err
		}
		if err := endOrigins(c); err != nil {
			return err
		}
		for _, t := range []SystemTable{layoutTable, changedTable} {
			if err := putRowsIn(c, t, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = sqlite.SetLogMode(path)
	}
	return err
}

// RecordingFacts are what a database that records, or did so, knows of its fork; nil if it is none.
func (tx *Tx) RecordingFacts() (*RecordingFacts, error) {
	have, err := tx.has(branchTable)
	if err != nil || !have {
		return nil, err
	}
	f := &RecordingFacts{}
	err = tx.own("SELECT name, value FROM "+branchTable.Name, nil, func(s *sqlite.Stmt) error {
		text := string(s.Column(1).Bytes)
		switch name := string(s.Column(0).Bytes); name {
		case "parent":
			f.Parent = text
		case "position":
			var err error
			if f.Position, err = strconv.ParseUint(text, 10, 64); err != nil {
				return fmt.Errorf("read the position of the fork: %w", err)
			}
		case "created":
			f.CreatedAt = s.Column(1).Int
		case "schema":
			f.Schema = text
		case "ended":
			f.Ended = text
		case originsKnown:
			if f.Tables == nil {
				f.Tables = map[string]Origin{}
			}
		default:
			if now, ok := strings.CutPrefix(name, originOf); ok {
				o, err := parseOrigin(s.Column(1).Bytes)
				if err != nil {
					return err
				}
				if f.Tables == nil {
					f.Tables = map[string]Origin{}
				}
				f.Tables[now] = o
			}
		}
		return nil
	})
	if f.Tables == nil && f.Ended == "" {
		f.Ended = "it was made by an earlier version of persqld"
	}
	return f, err
}

// Records tells whether what changes in the database is recorded.
func (tx *Tx) Records() bool { return tx.a.rec != nil && tx.a.rec.rows }

// RecordedRow is a row that was changed since the fork.
type RecordedRow struct {
	// Key is the rowid, or a BLOB of the encoded values of a WITHOUT ROWID table's primary key.
	Key sqlite.Value
	// Columns are the names of what is in Old, as they are now; empty where the column was dropped. Generated columns are left out.
	Columns []string
	Old     []sqlite.Value
	There   bool // there was a row
}

// RecordedTables are the tables with rows that changed, in order: those of the server's virtual tables by the names of what they keep their content in.
// A table that was dropped since is among them.
func (tx *Tx) RecordedTables() (tables []string, err error) {
	if have, err := tx.has(changedTable); err != nil || !have {
		return nil, err
	}
	for last := ""; ; {
		found := false
		err := tx.Query("SELECT tbl FROM "+changedTable.Name+" WHERE tbl>? ORDER BY tbl LIMIT 1", []sqlite.Param{textParam(last)}, func(s *sqlite.Stmt) error {
			last, found = string(s.Column(0).Bytes), true
			return nil
		})
		if err != nil || !found {
			return tables, err
		}
		tables = append(tables, last)
	}
}

// RecordedRows are rows of a table that changed, in the order of their keys, at most n behind the key after; nil is the beginning.
func (tx *Tx) RecordedRows(table string, after *sqlite.Value, n int) (rows []RecordedRow, err error) {
	if have, err := tx.has(changedTable); err != nil || !have {
		return nil, err
	}
	sql, params := "SELECT c.key, c.old, l.cols FROM "+changedTable.Name+" c LEFT JOIN "+layoutTable.Name+" l ON l.id=c.layout WHERE c.tbl=?1 ORDER BY c.key LIMIT ?2", []sqlite.Param{textParam(table), intParam(int64(n))}
	if after != nil {
		sql = strings.Replace(sql, " ORDER", " AND c.key>?3 ORDER", 1)
		params = append(params, sqlite.Param{Value: *after})
	}
	layouts := map[string][]string{}
	err = tx.Query(sql, params, func(s *sqlite.Stmt) error {
		r := RecordedRow{Key: s.Column(0), There: s.Column(1).Kind != sqlite.Null}
		r.Key.Bytes = slices.Clone(r.Key.Bytes)
		if s.Column(2).Kind == sqlite.Null {
			return errEncoding
		}
		cols := s.Column(2).Bytes
		names, ok := layouts[string(cols)]
		if !ok {
			var err error
			if names, err = namesOf(cols); err != nil {
				return err
			}
			layouts[string(cols)] = names
		}
		r.Columns = names
		if r.There {
			var err error
			if r.Old, err = ParseValues(slices.Clone(s.Column(1).Bytes)); err != nil {
				return err
			}
			if len(r.Old) != len(names) {
				return errEncoding
			}
		}
		rows = append(rows, r)
		return nil
	})
	return rows, err
}

// RecordedRow is the row of a key; nil if it wasn't changed.
func (tx *Tx) RecordedRow(table string, key sqlite.Value) (*RecordedRow, error) {
	if have, err := tx.has(changedTable); err != nil || !have {
		return nil, err
	}
	var row *RecordedRow
	err := tx.Query("SELECT c.old, l.cols FROM "+changedTable.Name+" c LEFT JOIN "+layoutTable.Name+" l ON l.id=c.layout WHERE c.tbl=? AND c.key=?",
		[]sqlite.Param{textParam(table), {Value: key}}, func(s *sqlite.Stmt) (err error) {
			if s.Column(1).Kind == sqlite.Null {
				return errEncoding
			}
			row = &RecordedRow{Key: key, There: s.Column(0).Kind != sqlite.Null}
			if row.Columns, err = namesOf(s.Column(1).Bytes); err == nil && row.There {
				row.Old, err = ParseValues(slices.Clone(s.Column(0).Bytes))
			}
			return err
		})
	return row, err
}

// Bare compiles one of the server's own statements, to be run by Run: it changes the rows that it names and nothing else. No trigger fires, and foreign keys are
// neither looked at nor act; that is the caller's business. The caller calls Done on it.
func (tx *Tx) Bare(sql string) (*sqlite.Stmt, error) {
	if tx.over() {
		return nil, errEnded
	}
	s, err := tx.a.conn.Bare(sql)
	return s, tx.check(err)
}

// Alter runs one of the server's own statements that change the schema, on which no foreign key hangs.
func (tx *Tx) Alter(sql string) error {
	if tx.over() {
		return errEnded
	}
	s, err := tx.a.conn.System(sql)
	if err != nil {
		return tx.check(err)
	}
	defer s.Done()
	_, err = tx.Run(s, nil, nil)
	return err
}

// Look is for a Job that runs many small statements, which nobody watches one by one: it returns when the request may go on, or why it must end. Other long
// requests have their turns meanwhile.
func (tx *Tx) Look() error {
	if tx.over() {
		return errEnded
	}
	return tx.check(tx.w.look())
}

// Shapes are the tables of the database, by their names in lower case.
func (tx *Tx) Shapes() (map[string]sqlite.Shape, error) {
	if tx.over() {
		return nil, errEnded
	}
	shapes, err := tx.a.conn.Shapes()
	return shapes, tx.check(err)
}

// ModuleArgs are what a virtual table was declared with; nil if there is no such table.
func (tx *Tx) ModuleArgs(table string) []string {
	if tx.over() {
		return nil
	}
	return tx.a.conn.ModuleArgs(table)
}

// NewBranch is what a file is to be as a branch.
type NewBranch struct {
	// Fill is the first that happens to the file's content; nil where it is whole.
	Fill  func(*sqlite.Conn) error
	Facts RecordingFacts
	// Words are those of the facts' schema, read from the file, unless the facts have them; nil for none.
	Words func(*sqlite.Conn) (string, error)
	// Reserve notes the database's id, without which its file gets no place; nil where that has been done. It runs beside the sync of the file.
	Reserve func() error
}

// CreateBranch is CreateFrom for a branch: what is changed in it from its first moment on is recorded. See Runner.
func (s *Store) CreateBranch(ctx context.Context, database, file string, n NewBranch) error {
	return s.createFrom(ctx, database, file, func(c *sqlite.Conn) (err error) {
		if n.Fill != nil {
			if err := n.Fill(c); err != nil {
				return err
			}
		}
		if n.Facts.Schema == "" && n.Words != nil {
			if n.Facts.Schema, err = n.Words(c); err != nil {
				return err
			}
		}
		return beginRecording(c, n.Facts)
	}, n.Reserve)
}

// replaced is why a recording ended.
const replaced = "the database was replaced by an import: what changed since the fork isn't known"
