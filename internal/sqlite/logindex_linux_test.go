package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	sqlite3 "modernc.org/sqlite/lib"
)

// indexPages counts the pages of the log's index that the kernel has given memory, of how many there are.
func indexPages(t *testing.T, c *Conn) (resident, all int) {
	t.Helper()
	wal := (*sqlite3.TWal)(at(c.pager().FpWal))
	for i := range wal.FnWiData {
		piece := *(*uintptr)(at(wal.FapWiData + 8*uintptr(i)))
		if piece == 0 {
			continue
		}
		if !memory.has(piece) || piece%uintptr(len(zeroPage)) != 0 {
			t.Fatalf("a piece at %x", piece)
		}
		in := make([]byte, logIndexPiece/len(zeroPage))
		if _, _, errno := syscall.Syscall(syscall.SYS_MINCORE, piece, logIndexPiece, uintptr(unsafe.Pointer(&in[0]))); errno != 0 {
			t.Fatal(errno)
		}
		for _, b := range in {
			resident += int(b & 1)
			all++
		}
	}
	return resident, all
}

// What the log's index doesn't use is given back, and is there when it is used.
func TestReleaseLogIndex(t *testing.T) {
	if len(zeroPage) > 4096 {
		t.Skip("the kernel's pages are larger than a quarter of the index")
	}
	path := filepath.Join(t.TempDir(), "t.db")
	if err := os.WriteFile(path, EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	thread := NewThread()
	defer thread.Close()
	c, err := Open(Config{Path: path}, thread)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exec := func(sql string) {
		t.Helper()
		if err := c.Exec(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)")
	exec("INSERT INTO t VALUES(0, x'00')")
	if resident, all := indexPages(t, c); resident != all || all != 8 {
		t.Fatalf("%d of %d pages before", resident, all)
	}
	c.ReleaseLogIndex()
	if resident, _ := indexPages(t, c); resident > 2 {
		t.Errorf("%d pages are left", resident)
	}
	// The log grows over several pieces, is given back between, copied back and begun again.
	for i := range 30 {
		exec(fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<100) INSERT INTO t(b) SELECT randomblob(%d) FROM n", 1000+i*300))
		c.ReleaseLogIndex()
		if i%12 == 11 {
			if err := c.Checkpoint(CheckpointTruncate); err != nil {
				t.Fatal(err)
			}
			c.ReleaseLogIndex()
		}
		var rows int64
		err := c.EachRow("SELECT count(*), sum(length(b)) FROM t", func(s *Stmt) error {
			rows = s.Column(0).Int
			return nil
		})
		if err != nil || rows != int64(i+1)*100+1 {
			t.Fatalf("%d rows after %d, %v", rows, i+1, err)
		}
	}
	if err := c.EachRow("PRAGMA integrity_check", func(s *Stmt) error {
		if said := string(s.Column(0).Bytes); said != "ok" {
			t.Error(said)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	// Another connection reads the log as it was written.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err = Open(Config{Path: path}, thread); err != nil {
		t.Fatal(err)
	}
	if err := c.EachRow("SELECT count(*) FROM t", func(s *Stmt) error {
		if n := s.Column(0).Int; n != 3001 {
			t.Errorf("%d rows when opened again", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
