package gate

import "github.com/persqld/persqld/internal/sqlite"

// Level is how much a role may do. A higher one may do all that a lower one may.
type Level uint8

// The levels. The zero Level may do nothing.
const (
	LevelNone  Level = iota
	LevelRead        // SELECT, and pragmas that read
	LevelWrite       // INSERT, UPDATE and DELETE, and what keeps the planner's statistics
	LevelAdmin       // the schema, and everything else that a tenant may
)

// LevelOf is the level of a role's name, in either of the contract's vocabularies; LevelNone for any other word.
func LevelOf(role string) Level {
	switch role {
	case RoleAdmin:
		return LevelAdmin
	case "readwrite", "write":
		return LevelWrite
	case "readonly", "read":
		return LevelRead
	}
	return LevelNone
}

// RoleAdmin is the role that may do everything that a tenant may.
const RoleAdmin = "admin"

// role is a role that has the level, for hints.
func (l Level) role() string {
	switch l {
	case LevelRead:
		return "readonly"
	case LevelWrite:
		return "readwrite"
	}
	return RoleAdmin
}

// Scope is the tables and views that a token may touch. Names compare as SQLite compares them.
type Scope interface {
	Has(table string) bool
}

// Caller is who asks, as far as the decision needs it.
type Caller struct {
	TokenID string
	Role    string // the word that was given
	Scope   Scope  // nil is all of them

	Policies *Policies     // what binds the caller in this database; nil is nothing
	Claims   sqlite.Claims // what its policies know of it; nil is nothing
}

// Bound tells whether policies hide rows of the database from the caller.
func (c *Caller) Bound() bool { return c.Policies != nil }

// Level is the level of the caller's role.
func (c *Caller) Level() Level { return LevelOf(c.Role) }

// Whole tells whether the caller may see all of a database, whatever its role.
func (c *Caller) Whole() bool { return c.Scope == nil }

// Sees tells whether the caller may know of a table or view.
func (c *Caller) Sees(table string) bool { return c.Scope == nil || c.Scope.Has(table) }
