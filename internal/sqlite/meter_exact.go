//go:build rowmeter

package sqlite

import sqlite3 "modernc.org/sqlite/lib"

const rowMeter = "exact"

// estimate is nothing here: SQLite's virtual machine counts, by what the program rowmeter has put there.
type estimate struct{}

func (estimate) examine([]sqlite3.TVdbeOp) {}

func (s *Stmt) cost(int64) Counts {
	m := sqlite3.MeterOf(s.ptr)
	return Counts{RowsRead: int64(m.Read), RowsWritten: int64(m.Written)}
}

func (s *Stmt) forgetCost() { *sqlite3.MeterOf(s.ptr) = sqlite3.Meter{} }
