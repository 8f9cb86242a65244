// Package sqlite is the engine: SQLite's C API, as modernc.org/sqlite/lib transpiles it, in the shape that an
// actor needs. Nothing else in this module imports the C API.
//
// # Connections, threads, statements
//
// A [Conn] is one database file, opened for one owner ([Open]). It has no lock: whoever runs it must be the
// only one that does, and must have lent it a [Thread] with [Conn.Use]. A Thread is SQLite's idea of an
// operating-system thread (thread-local storage and a stack of its own) plus memory for bound values; a worker
// has one and lends it to whatever connection it runs, which saves 25 KB a database beside a Thread each.
//
// [Conn.Prepare] compiles one statement and says what it would touch ([Stmt.Accesses], from SQLite's
// authorizer), so that a policy can decide on facts and not on text. Statements are kept by their text and
// dropped at every change of the schema.
//
// # Errors
//
// Every error of the engine is an [*Error] with SQLite's extended result code. A fault inside the transpiled
// code is a Go panic: the owner recovers it, calls [Conn.Abandon] and opens the file anew.
package sqlite
