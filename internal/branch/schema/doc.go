// Package schema merges schemas three ways: what a branch changed since its fork is to be made on the parent, which may have changed too. It
// knows SQLite, and neither the store nor HTTP.
//
// [Read] reads a schema, [Merge] works a [Plan] out of three, [Plan.Run] carries it out. See DESIGN.md for what is decided how.
//
// # What the caller must do
//
// A plan belongs to the parent's schema that it was made of: read that, merge and run in one transaction, or see to it that nobody changed it
// in between.
//
// Each statement must be compiled without foreign keys, by [sqlite.Conn.System], or on a connection that has PRAGMA foreign_keys=OFF since
// before BEGIN: inside a transaction that pragma does nothing, and PRAGMA defer_foreign_keys doesn't help, since DROP TABLE deletes the rows
// first, and ON DELETE CASCADE takes those of other tables along. Before COMMIT, PRAGMA foreign_key_check of each table of [Plan.Check] must
// return nothing, or nothing that it didn't return before.
//
// The statements switch PRAGMA legacy_alter_table on and off again. After a failure between the two it has to be switched off: [Plan.Run] does.
// The connection must have it off to begin with, and its cached statements have to go after a rollback ([sqlite.Conn.Altered]).
//
// A statement may fail for the rows that are there: a UNIQUE index over rows that aren't, a NOT NULL column that holds NULL. That is the end
// of the merge, and the transaction's.
//
// # Errors
//
// A [*LimitError] is the sender's to mend. A context that ended is told by errors.Is. [ErrFault] is a fault inside the engine. All else is a
// schema that SQLite doesn't take from its own text, or a plan that didn't stand its trial: neither is expected.
package schema
