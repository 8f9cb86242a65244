package crashfs_test

import (
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/sqlite/crashfs"
)

// What an interceptor refuses isn't done, and the log stays true.
func TestIntercept(t *testing.T) {
	rec := record(t)
	vfs, err := rec.VFS()
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, filepath.Join(rec.Root(), "a.db"), vfs, "journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(0)")
	exec(t, db, `CREATE TABLE t(x)`)
	for _, tt := range []struct {
		name string
		op   crashfs.FileOp
		code int32
	}{
		{"full disk", crashfs.OpWrite, crashfs.Full},
		{"failed write", crashfs.OpWrite, crashfs.ErrWrite},
		{"failed sync", crashfs.OpSync, crashfs.ErrSync},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			rec.Intercept(func(op crashfs.FileOp, rel string) int32 {
				if op != tt.op {
					return crashfs.OK
				}
				if rel != "a.db-wal" {
					t.Errorf("asked about %s", rel)
				}
				asked++
				return tt.code
			})
			if _, err := db.Exec(`INSERT INTO t VALUES (1)`); err == nil || asked == 0 {
				t.Errorf("got %v, asked %d times", err, asked)
			}
			rec.Intercept(nil)
			exec(t, db, `INSERT INTO t VALUES (2)`)
		})
	}
	var n int
	if err := db.QueryRow(`SELECT count(*) FROM t`).Scan(&n); err != nil || n != 3 {
		t.Errorf("%d rows, %v, want 3", n, err)
	}
	if err := rec.Verify(); err != nil {
		t.Error(err)
	}
}
