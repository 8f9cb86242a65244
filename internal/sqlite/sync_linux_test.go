package sqlite

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// A database's file and its log have other methods in the system's VFS: both sync with ours.
func TestFilesHaveOurSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	if err := os.WriteFile(path, EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	th := NewThread()
	defer th.Close()
	c, err := Open(Config{Path: path}, th)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Exec("BEGIN IMMEDIATE"); err != nil { // opens the log
		t.Fatal(err)
	}
	for name, op := range map[string]int32{"file": sqlite3.SQLITE_FCNTL_FILE_POINTER, "log": sqlite3.SQLITE_FCNTL_JOURNAL_POINTER} {
		if rc := sqlite3.Xsqlite3_file_control(th.tls, c.db, 0, op, th.out); rc != sqlite3.SQLITE_OK {
			t.Fatalf("%s: result %d", name, rc)
		}
		f := *(**sqlite3.Tsqlite3_file)(at(th.out))
		if m := (*sqlite3.Tsqlite3_io_methods)(at(f.FpMethods)); m.FxSync != funcptr(syncFile) {
			t.Errorf("the %s's sync is not ours", name)
		}
	}
}

// Many sync at the same time, with and without a processor, while the collector stops the world and moves stacks.
func TestSyncWithoutProcessor(t *testing.T) {
	was := syncs.processors
	defer func() { syncs.processors = was }()
	for _, processors := range []int32{0, 8, 1 << 20} { // all of them give theirs on; some; none
		syncs.processors = processors
		var done sync.WaitGroup
		for range 16 {
			file, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			done.Go(func() {
				tls := libc.NewTLS()
				defer tls.Close()
				f := unixFile(t, tls, int32(file.Fd()))
				defer libc.Xfree(tls, f)
				for i := range 20 {
					if _, err := file.Write([]byte{1}); err != nil {
						t.Error(err)
					}
					if rc := syncFile(tls, f, sqlite3.SQLITE_SYNC_FULL); rc != sqlite3.SQLITE_OK {
						t.Errorf("sync: result %d", rc)
					}
					if i%8 == 0 {
						runtime.GC()
					}
				}
			})
		}
		done.Wait()
		if n := syncs.waiting.Load(); n != 0 {
			t.Errorf("%d syncs are counted after all have ended", n)
		}
	}
}

func TestSyncTellsErrors(t *testing.T) {
	was := syncs.processors
	defer func() { syncs.processors = was }()
	tls := libc.NewTLS()
	defer tls.Close()
	for _, processors := range []int32{0, 1 << 20} {
		syncs.processors = processors
		f := unixFile(t, tls, -1)
		if rc := syncFile(tls, f, sqlite3.SQLITE_SYNC_FULL); rc != sqlite3.SQLITE_IOERR_FSYNC {
			t.Errorf("result %d", rc)
		}
		if n := (*sqlite3.TunixFile)(at(f)).FlastErrno; n != int32(syscall.EBADF) {
			t.Errorf("error number %d", n)
		}
		libc.Xfree(tls, f)
	}
}

// unixFile is what the system's VFS knows of an open file, as far as a sync looks.
func unixFile(t *testing.T, tls *libc.TLS, fd int32) uintptr {
	p := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.TunixFile{})))
	if p == 0 {
		t.Error("out of memory")
		runtime.Goexit()
	}
	(*sqlite3.TunixFile)(at(p)).Fh = fd
	return p
}
