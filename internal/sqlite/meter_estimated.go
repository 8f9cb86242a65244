//go:build !rowmeter

package sqlite

import (
	"math"

	sqlite3 "modernc.org/sqlite/lib"
)

const rowMeter = "estimated"

// estimate is what of a program SQLite's own counters don't tell.
type estimate struct {
	seeks  uint32 // Rewind, Last and Seek operations in the program
	writes int64  // Insert and IdxInsert operations of one row
}

func (e *estimate) examine(ops []sqlite3.TVdbeOp) {
	var inserts, indexes int64
	for i := range ops {
		switch ops[i].Fopcode {
		case sqlite3.OP_Rewind, sqlite3.OP_Last, sqlite3.OP_SeekGE, sqlite3.OP_SeekGT, sqlite3.OP_SeekLE, sqlite3.OP_SeekLT,
			sqlite3.OP_SeekRowid, sqlite3.OP_NotExists:
			e.seeks++
		case sqlite3.OP_Insert:
			inserts++
		case sqlite3.OP_IdxInsert:
			indexes++
		}
	}
	e.writes = 1
	if inserts > 0 {
		e.writes += indexes / inserts
	}
}

// cost guesses: the steps of every scan and one for each seek of the program; the changes times what one writes.
func (s *Stmt) cost(changed int64) Counts {
	v := (*sqlite3.TVdbe)(at(s.ptr))
	read := int64(v.FaCounter[0]) + int64(v.FaCounter[sqlite3.SQLITE_STMTSTATUS_FULLSCAN_STEP]) + int64(v.FaCounter[sqlite3.SQLITE_STMTSTATUS_AUTOINDEX])
	if !s.Explain {
		read += int64(s.estimate.seeks)
	}
	return Counts{RowsRead: read, RowsWritten: satMul(changed, s.estimate.writes)}
}

func (s *Stmt) forgetCost() {
	v := (*sqlite3.TVdbe)(at(s.ptr))
	v.FaCounter[0], v.FaCounter[sqlite3.SQLITE_STMTSTATUS_FULLSCAN_STEP], v.FaCounter[sqlite3.SQLITE_STMTSTATUS_AUTOINDEX] = 0, 0, 0
}

func satMul(a, b int64) int64 {
	if a > math.MaxInt64/max(b, 1) {
		return math.MaxInt64
	}
	return a * b
}
