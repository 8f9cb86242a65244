package sqlite

import (
	"encoding/binary"

	sqlite3 "modernc.org/sqlite/lib"
)

// LogSize is how many bytes of the log committed transactions take: what stands behind them is of a commit that
// failed, or of an earlier run of the log. No transaction may be open.
func (c *Conn) LogSize() (int64, error) {
	t := c.thread
	was := c.mode
	c.mode = modeOwn
	rc := sqlite3.Xsqlite3_wal_checkpoint_v2(t.tls, c.db, 0, sqlite3.SQLITE_CHECKPOINT_NOOP, t.out, t.out+8)
	c.mode = was
	if rc != sqlite3.SQLITE_OK {
		return 0, c.fail(rc)
	}
	frames := int64(int32(binary.NativeEndian.Uint32(view(t.out, 4))))
	if frames <= 0 {
		return 0, nil
	}
	return walHeaderSize + frames*(walFrameHeaderSize+PageSize), nil
}
