//go:build !linux

package sqlite

import sqlite3 "modernc.org/sqlite/lib"

// replaceSync leaves the system's sync as it is.
func replaceSync(*sqlite3.Tsqlite3_vfs) {}
