// Package querylog keeps, for each database, the statements that ran lately: what they were, what they cost, how they
// ended. A statement's own lane pays a copy into memory ([Log.Append]); once a second the log's own goroutine writes
// what came together into one SQLite file that all databases share. See DESIGN.md.
//
// The log is a help and no record: it may lose its last second in a crash, drops its oldest entries under overload and
// counts them, and never stops the server. It is no part of a database's history, quota or meters.
package querylog
