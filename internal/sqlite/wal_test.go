package sqlite_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// logOf makes a database with three transactions in its log and returns the log.
func logOf(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "w.db")
	c := open(t, sqlite.Config{Path: path})
	must(t, c, "CREATE TABLE t(a)")
	must(t, c, "INSERT INTO t VALUES(randomblob(9000))")
	must(t, c, "INSERT INTO t VALUES(randomblob(9000))")
	log, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// transactions reads a log to its end.
func transactions(t *testing.T, log []byte) (n int, end int64) {
	t.Helper()
	r, err := sqlite.NewWALReader(bytes.NewReader(log))
	if errors.Is(err, sqlite.ErrNoLog) {
		return 0, 0
	}
	if err != nil {
		t.Fatal(err)
	}
	for {
		frames, err := r.Next()
		if err == io.EOF {
			return n, r.Offset()
		}
		if err != nil {
			t.Fatal(err)
		}
		if last := frames[len(frames)-1]; last.Commit == 0 || len(last.Data) != sqlite.PageSize {
			t.Errorf("transaction %d ends with %+v", n, last.Commit)
		}
		n++
	}
}

// Whatever byte of the log a crash took or tore, exactly the transactions before it are read.
func TestTornLog(t *testing.T) {
	log := logOf(t)
	var ends []int64
	r, err := sqlite.NewWALReader(bytes.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := r.Next(); err != nil {
			break
		}
		ends = append(ends, r.Offset())
	}
	if len(ends) != 3 || ends[2] != int64(len(log)) {
		t.Fatalf("the whole log: transactions end at %v of %d", ends, len(log))
	}
	before := func(at int) (n int) {
		for n < len(ends) && ends[n] <= int64(at) {
			n++
		}
		return n
	}
	for at := 0; at < len(log); at += 97 {
		if n, _ := transactions(t, log[:at]); n != before(at) {
			t.Errorf("cut at %d: %d transactions, want %d", at, n, before(at))
		}
		torn := bytes.Clone(log)
		torn[at] ^= 0x40
		if n, _ := transactions(t, torn); n != before(at) {
			t.Errorf("torn at %d: %d transactions, want %d", at, n, before(at))
		}
	}
	for name, header := range map[string]func([]byte){
		"zeros":     func(b []byte) { clear(b[:32]) },
		"magic":     func(b []byte) { binary.BigEndian.PutUint32(b, 0x12345678) },
		"page size": func(b []byte) { binary.BigEndian.PutUint32(b[8:], 3) },
	} {
		bad := bytes.Clone(log)
		header(bad)
		if n, _ := transactions(t, bad); n != 0 {
			t.Errorf("%s: %d transactions", name, n)
		}
	}
}

// A reader that stands at the end sees what is written next. When the log begins anew its salts are others: the old
// reader finds nothing more, and a new one nothing of before.
func TestLogBeginsAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.db")
	c := open(t, sqlite.Config{Path: path})
	must(t, c, "CREATE TABLE t(a)")
	f, err := os.Open(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := sqlite.NewWALReader(f)
	if err != nil {
		t.Fatal(err)
	}
	read := func() (n int) {
		t.Helper()
		for {
			if _, err := r.Next(); err == io.EOF {
				return n
			} else if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	if n := read(); n != 1 {
		t.Errorf("%d transactions, want 1", n)
	}
	must(t, c, "INSERT INTO t VALUES(1)")
	must(t, c, "INSERT INTO t VALUES(2)")
	must(t, c, "BEGIN")
	must(t, c, "INSERT INTO t VALUES(3)")
	if n := read(); n != 2 {
		t.Errorf("%d transactions, want 2: the open one is not committed", n)
	}
	must(t, c, "ROLLBACK")
	frames, commits := c.LogFrames(), c.Commits()
	if err := c.Checkpoint(sqlite.CheckpointPassive); err != nil {
		t.Fatal(err)
	}
	if frames == 0 || c.LogFrames() != 0 {
		t.Errorf("%d frames before, %d after the checkpoint", frames, c.LogFrames())
	}
	if got := must(t, c, "SELECT count(*) FROM t"); got[0][0] != "2" || c.Commits() != commits {
		t.Errorf("a read counted as a commit, or rows are gone: %v", got)
	}
	old := r.Header()
	must(t, c, "INSERT INTO t VALUES(4)")
	if n := read(); n != 0 {
		t.Errorf("the old reader found %d transactions", n)
	}
	if r, err = sqlite.NewWALReader(f); err != nil {
		t.Fatal(err)
	}
	if h := r.Header(); h.Salt1 == old.Salt1 && h.Salt2 == old.Salt2 || h.PageSize != sqlite.PageSize {
		t.Errorf("header %+v, was %+v", h, old)
	}
	if n := read(); n != 1 {
		t.Errorf("%d transactions in the new log, want 1", n)
	}
	if c.LogFrames() != int((r.Offset()-32)/(24+sqlite.PageSize)) {
		t.Errorf("%d frames, the reader stands at %d", c.LogFrames(), r.Offset())
	}
	// What an earlier connection left in the log counts too.
	frames = c.LogFrames()
	c.Close()
	if c = open(t, sqlite.Config{Path: path}); c.LogFrames() < frames {
		t.Errorf("%d frames after opening, want %d", c.LogFrames(), frames)
	}
	if got := must(t, c, "SELECT count(*) FROM t"); got[0][0] != "3" {
		t.Errorf("rows: %v", got)
	}
}

// Both orders sum the same words.
func TestWALChecksum(t *testing.T) {
	little := make([]byte, 4096)
	for i := range little {
		little[i] = byte(i*i>>3 + i)
	}
	big := make([]byte, len(little))
	s1, s2 := uint32(7), uint32(9)
	for i := 0; i < len(little); i += 4 {
		word := binary.LittleEndian.Uint32(little[i:])
		binary.BigEndian.PutUint32(big[i:], word)
		if i%8 == 0 { // https://sqlite.org/fileformat2.html#walcksm
			s1 += word + s2
		} else {
			s2 += word + s1
		}
	}
	for order, b := range map[binary.ByteOrder][]byte{binary.LittleEndian: little, binary.BigEndian: big} {
		if a, b := sqlite.WALChecksum(order, 7, 9, b); a != s1 || b != s2 {
			t.Errorf("%v: %x %x, want %x %x", order, a, b, s1, s2)
		}
	}
}
