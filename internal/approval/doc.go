// Package approval decides which writes a person has to look at first.
//
// A [Rule] is about tables by a glob, and about kinds of writes. [Rules] judge a list of writes, which the gate has of SQLite's
// authorizer, and counts of rows, which it has of SQLite while a statement runs. What they stop is a [Stop]: denied, or held until
// an approval is given. [State] is what becomes of an approval.
//
// The package knows nothing of HTTP, of files, or of SQL: see DESIGN.md.
package approval
