package sqlite_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// A file whose log a crash left is opened without a shared-memory file, which a full disk has no room for.
func TestDriverMakesNoSharedMemory(t *testing.T) {
	dir, left := t.TempDir(), t.TempDir()
	db, err := sqlite.OpenDriver(filepath.Join(dir, "c.db"), sqlite.DriverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE t(a)"); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	again, err := sqlite.OpenDriver(filepath.Join(left, "c.db"), sqlite.DriverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := again.Exec("INSERT INTO t VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{dir, left} {
		if _, err := os.Stat(filepath.Join(folder, "c.db-shm")); err == nil {
			t.Errorf("there is a shared-memory file in %s", folder)
		}
	}
}
