// Package rows merges the rows of a branch into its parent: three versions of each row that the branch has changed, and what becomes of them. See DESIGN.md.
package rows

import (
	"errors"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// DB is one side of a merge, within one transaction. A *store.Tx is one.
type DB interface {
	// Bare compiles a statement that no trigger and no foreign key hangs on.
	Bare(sql string) (*sqlite.Stmt, error)
	Run(s *sqlite.Stmt, params []sqlite.Param, row func(*sqlite.Stmt) error) (store.Result, error)
	Shapes() (map[string]sqlite.Shape, error)
	ModuleArgs(table string) []string
	// Look is asked now and then whether to go on.
	Look() error
}

// Branch is the side that recorded its changes. A *store.Tx is one.
type Branch interface {
	DB
	RecordedTables() ([]string, error)
	RecordedRows(table string, after *sqlite.Value, n int) ([]store.RecordedRow, error)
	RecordedRow(table string, key sqlite.Value) (*store.RecordedRow, error)
}

// OnConflict says what becomes of a row that both sides changed differently.
type OnConflict uint8

// The ways to deal with conflicts.
const (
	Abort  OnConflict = iota // nothing is merged
	Ours                     // the parent's row stays
	Theirs                   // the branch's row wins
)

// Options say how to merge.
type Options struct {
	OnConflict OnConflict
	// Preview only computes what would be done. What the parent's constraints say to it isn't known then.
	Preview bool
	Max     int    // conflicts that are listed; 100
	Dir     string // for what doesn't fit in memory; the system's choice
}

// Result is what a merge did, or would do.
type Result struct {
	Inserted, Updated, Deleted int64
	Conflicts                  []Conflict // the first of them
	ConflictCount              int64      // all of them
	// Skipped are tables with changes that the other side doesn't have, or the branch any more.
	Skipped []string
	// ByRowid are tables with changes whose rows were matched by their rowids, since they have no primary key.
	ByRowid []string
}

// Conflict is a row that both sides changed differently, or one that the parent can't take.
type Conflict struct {
	Table      string
	KeyColumns []string // "rowid" for a table without a primary key
	Key        []sqlite.Value
	Columns    []string       // of the three versions: those that both sides have
	Base       []sqlite.Value // at the fork; nil: there was no such row
	Branch     []sqlite.Value // now; nil: there is none
	Parent     []sqlite.Value
	Reason     Reason
	Message    string // of the engine, where a constraint says no
}

// Reason is why there is a conflict.
type Reason string

// The reasons.
const (
	BothChanged  Reason = "both_changed"
	BothInserted Reason = "both_inserted"
	Deleted      Reason = "deleted_and_changed" // by one side each
	Constraint   Reason = "constraint"          // the parent's constraints, or its other rows, don't let it in
	ForeignKey   Reason = "foreign_key"         // a row that refers to none would be left
)

// ErrConflict is returned with a Result that names the conflicts which ended a merge. What was written is the caller's to undo.
var ErrConflict = errors.New("the rows of the branch and its parent conflict")

// Problem is a table whose rows can't be merged.
type Problem struct {
	Table   string
	Message string
}

// Error names the table.
func (p *Problem) Error() string {
	return "the rows of table " + p.Table + " can't be merged: " + p.Message
}
