package crashfs_test

import (
	"path/filepath"
	"testing"
)

// BenchmarkCrash is one simulated power loss, its check included, of the log
// that TestCommitsStandAfterPowerLoss uses.
func BenchmarkCrash(b *testing.B) {
	rec := record(b)
	vfs, err := rec.VFS()
	if err != nil {
		b.Fatal(err)
	}
	db := open(b, filepath.Join(rec.Root(), "a.db"), vfs, "locking_mode(exclusive)", "journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(0)")
	commits(b, rec, db, 240)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	if err := rec.Log().Crashes(b.N, 1, b.TempDir(), intact); err != nil {
		b.Fatal(err)
	}
}
