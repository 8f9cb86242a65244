// Package catalog knows who owns what: namespaces, databases, tokens and the server's own memory, in one SQLite file.
//
// Everything that a request asks (who is this, which database is that) is answered from memory, without a disk read.
// Everything that changes is committed to the file first and shown in memory next, before the call returns: what a
// caller was told has happened holds for the very next request and after a power loss. DESIGN.md tells how.
package catalog
