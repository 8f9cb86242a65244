// Package transfer takes databases out of the server and strangers' into it: SQL text, SQLite files, CSV.
//
// # Scratch files
//
// [Dump], [Load], [Adopt] and [Strip] work on a scratch file: a SQLite file of its own that nobody else has open, with
// neither a -wal nor a journal beside it. They know nothing of live databases: the store makes a copy, one of these
// works on it, and the store takes the result or deletes it. So a failure, whatever it is, harms the scratch alone.
// A file that Load or Adopt returned without an error is in WAL mode, synced, whole by SQLite's own check, and has no
// other file beside it: [sqlite.Open] opens it, and it can be renamed into place.
//
// # Who decides
//
// What comes from outside may do what a client may, and no more: package gate decides on every access that SQLite
// reports, and [Load] allows beside that only what it carries out itself (see DESIGN.md).
//
// # Errors
//
// An [*Error] is the sender's to mend and is worded for them. A context that ended is told by errors.Is; an
// [*sqlite.Error] beneath tells a full disk or a quota ([sqlite.CodeFull], [sqlite.CodeIOErr]); [ErrFault] is a fault
// inside the engine, whose connection was given up. Anything else is the server's.
package transfer
