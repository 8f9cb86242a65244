package sqlite

import sqlite3 "modernc.org/sqlite/lib"

// Fault makes the transpiled code read memory that isn't there, where Go takes it for no nil pointer.
func (c *Conn) Fault() { sqlite3.Xsqlite3_step(c.thread.tls, 1<<45) }
