package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// keepTables brings the rows of system tables that a database keeps, whatever takes its place, into the file that will. Nobody writes to the
// database meanwhile. What goes along is added to them.
func (s *Store) keepTables(ctx context.Context, database, scratch string, kept func(SystemTable) bool, along *Along) error {
	for _, t := range s.system.all() {
		if !kept(t) {
			continue
		}
		rows, err := s.rowsOf(ctx, database, t)
		if err != nil {
			return fmt.Errorf("read %s: %w", t.Name, err)
		}
		if err := putRows(scratch, t, rows); err != nil {
			return fmt.Errorf("keep %s: %w", t.Name, err)
		}
	}
	if along.Label != nil {
		if err := s.labelFile(scratch, along.Label); err != nil {
			return fmt.Errorf("label what was there: %w", err)
		}
	}
	if along.Permit != nil {
		if err := spendInFile(scratch, along.Permit); err != nil {
			return fmt.Errorf("note that the permission is used: %w", err)
		}
	}
	return sqlite.SetLogMode(scratch)
}

// rowsOf reads a system table whole: each of them is bounded.
func (s *Store) rowsOf(ctx context.Context, database string, t SystemTable) (rows [][]sqlite.Param, err error) {
	err = s.Do(ctx, database, &Request{Job: JobFunc(func(tx *Tx) error {
		rows = nil
		have, err := tx.has(t)
		if err != nil || !have {
			return err
		}
		return tx.own("SELECT * FROM "+t.Name, nil, func(st *sqlite.Stmt) error {
			row := make([]sqlite.Param, st.Columns())
			for i := range row {
				v := st.Column(i)
				v.Bytes = append([]byte{}, v.Bytes...)
				row[i] = sqlite.Param{Value: v}
			}
			rows = append(rows, row)
			return nil
		})
	})})
	return rows, err
}

// withScratch opens a file that nobody else has open.
func withScratch(path string, do func(*sqlite.Conn) error) error {
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.OpenScratch(sqlite.Scratch{Path: path}, th)
	if err != nil {
		return err
	}
	err = do(c)
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	return err
}

// execute runs one of the server's own statements to its end.
func execute(c *sqlite.Conn, sql string, params []sqlite.Param) error {
	st, err := c.System(sql)
	if err != nil {
		return err
	}
	defer st.Done()
	if err := st.Bind(params); err != nil {
		return err
	}
	return steps(st, nil)
}

// putRows makes a system table anew in a file that nobody else has open.
func putRows(path string, t SystemTable, rows [][]sqlite.Param) error {
	return withScratch(path, func(c *sqlite.Conn) error { return putRowsIn(c, t, rows) })
}

// ensureTable makes a system table in a file that nobody else has open, unless it is there.
func ensureTable(c *sqlite.Conn, t SystemTable) error {
	names, err := c.TableNames(SystemPrefix)
	if err != nil || slices.Contains(names, t.Name) {
		return err
	}
	return c.CreateReserved(t.create())
}

func putRowsIn(c *sqlite.Conn, t SystemTable, rows [][]sqlite.Param) error {
	if err := dropTable(c, t); err != nil || len(rows) == 0 {
		return err
	}
	if err := c.CreateReserved(t.create()); err != nil {
		return err
	}
	return insertRows(c, t, rows)
}

// dropTable takes a system table out of a file that nobody else has open.
func dropTable(c *sqlite.Conn, t SystemTable) error {
	names, err := c.TableNames(SystemPrefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		if family(name) == family(t.Name) { // former versions too
			if err := c.DropReserved(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// insertRows puts rows, of which there is one, into a table that is there.
func insertRows(c *sqlite.Conn, t SystemTable, rows [][]sqlite.Param) error {
	return c.ForEach("INSERT INTO "+t.Name+" VALUES(?"+strings.Repeat(",?", len(rows[0])-1)+")", rows)
}
