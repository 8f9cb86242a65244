package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// smallDisk is a file system of a few megabytes.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		harness.Lacking(t, "the right to mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the room that is left; the returned function gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err := f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// On a full disk writes are refused and reads go on, a start included; nothing acknowledged is lost, and writes work again
// once there is room, without a restart.
func TestFullDisk(t *testing.T) {
	row(t, "DP-E-10")
	disk := smallDisk(t, 48<<20)
	opt := harness.Options{Data: filepath.Join(disk, "data")}
	s := harness.Start(t, binary, opt)
	d := s.Client(t, harness.Token).DB("full")
	d.Must("CREATE TABLE t(n INTEGER PRIMARY KEY, b)")
	acknowledged := 0
	insert := func() *harness.Answer {
		a := d.Query("INSERT INTO t(b) VALUES(randomblob(20000))")
		if a.Status == http.StatusOK {
			acknowledged++
		}
		return a
	}
	for range 20 {
		insert().OK()
	}
	count := func() {
		t.Helper()
		if got := d.One("SELECT count(*) FROM t"); got != fmt.Sprint(acknowledged) {
			t.Errorf("%s rows, %d were acknowledged", got, acknowledged)
		}
	}
	free := fill(t, disk)
	refused := 0
	for range 60 {
		if a := insert(); a.Status != http.StatusOK {
			a.Fails(http.StatusServiceUnavailable, "disk_full")
			refused++
		}
		count()
	}
	if refused == 0 {
		t.Fatal("the disk is not full")
	}
	d.Batch(true, "INSERT INTO t(b) VALUES(1)", "INSERT INTO t(b) VALUES(randomblob(9000000))").Fails(http.StatusServiceUnavailable, "disk_full")
	d.Client.DB("another").Query("CREATE TABLE x(a)").Fails(http.StatusServiceUnavailable, "disk_full")
	imports(t, d, []byte("INSERT INTO t(b) VALUES('"+strings.Repeat("x", 1<<20)+"');")).Fails(http.StatusServiceUnavailable, "disk_full")
	count()

	// A server starts on a full disk, after kill -9 too.
	s.Kill()
	s = harness.Start(t, binary, opt)
	d = s.Client(t, harness.Token).DB("full")
	count()
	free()
	insert().OK()
	d.Client.DB("another").Must("CREATE TABLE x(a)")
	count()
	if code := s.Stop(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s = harness.Start(t, binary, opt)
	d = s.Client(t, harness.Token).DB("full")
	count()
	if got := d.One("PRAGMA integrity_check"); got != "ok" {
		t.Error(got)
	}
}
