package sqlite

import (
	sqlite3 "modernc.org/sqlite/lib"
)

// CheckpointMode is how far a checkpoint goes (https://sqlite.org/c3ref/wal_checkpoint_v2.html).
type CheckpointMode int32

const (
	// CheckpointPassive copies the log's pages into the file; the log is written from its beginning next.
	CheckpointPassive CheckpointMode = sqlite3.SQLITE_CHECKPOINT_PASSIVE
	// CheckpointTruncate does that and cuts the log to nothing.
	CheckpointTruncate CheckpointMode = sqlite3.SQLITE_CHECKPOINT_TRUNCATE
)

// LogFrames is the number of frames (pages) that the log held after the last commit: what a checkpoint would copy.
func (c *Conn) LogFrames() int { return c.frames }

// Checkpoint copies the log back into the file, both synced. No transaction may be open. It is the only way that
// happens: neither a commit nor Close does it.
func (c *Conn) Checkpoint(m CheckpointMode) error {
	t := c.thread
	was := c.mode
	c.mode = modeOwn
	rc := sqlite3.Xsqlite3_wal_checkpoint_v2(t.tls, c.db, 0, int32(m), t.out, t.out+8)
	c.mode = was
	if rc != sqlite3.SQLITE_OK {
		return c.fail(rc)
	}
	if done, all := *(*int32)(at(t.out + 8)), *(*int32)(at(t.out)); done >= all {
		c.frames = 0
		c.log = c.log && m != CheckpointTruncate
	}
	return nil
}

// HasLog tells whether the log takes room. LogFrames does not: it is 0 after a passive checkpoint, which leaves the file as
// long as it was.
func (c *Conn) HasLog() bool { return c.log }

// AllowVacuum runs f with what VACUUM needs: one attached file, for the copy that it makes. No transaction may be
// open.
func (c *Conn) AllowVacuum(f func() error) error {
	sqlite3.Xsqlite3_limit(c.thread.tls, c.db, sqlite3.SQLITE_LIMIT_ATTACHED, 1)
	defer func() { sqlite3.Xsqlite3_limit(c.thread.tls, c.db, sqlite3.SQLITE_LIMIT_ATTACHED, 0) }()
	return f()
}
