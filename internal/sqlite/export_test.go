package sqlite

import sqlite3 "modernc.org/sqlite/lib"

// Fault makes the transpiled code read memory that isn't there.
func (c *Conn) Fault() { sqlite3.Xsqlite3_step(c.thread.tls, 16) }
