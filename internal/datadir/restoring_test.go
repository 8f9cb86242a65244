package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/datadir"
)

// A directory that is being filled is nobody's until it is full; an interrupted try leaves nothing to the next one.
func TestOpenEmpty(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "data")
	for try := range 2 {
		d, err := datadir.OpenEmpty(root)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := datadir.OpenEmpty(root); !errors.Is(err, datadir.ErrLocked) {
			t.Errorf("a second restore beside it: %v", err)
		}
		for _, path := range []string{d.Catalog(), filepath.Join(d.Databases(), "x.db"), filepath.Join(d.Temp(), "x")} {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("try %d: %s is there", try, path)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Close(); err != nil { // interrupted
			t.Fatal(err)
		}
		if _, err := datadir.Open(root); !errors.Is(err, datadir.ErrUnfinished) {
			t.Errorf("opened by a server: %v", err)
		}
		if _, err := datadir.Hold(root); !errors.Is(err, datadir.ErrUnfinished) {
			t.Errorf("looked at: %v", err)
		}
	}
	d, err := datadir.OpenEmpty(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Filled(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := datadir.OpenEmpty(root); !errors.Is(err, datadir.ErrNotEmpty) {
		t.Errorf("filled again: %v", err)
	}
	d, err = datadir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

// What somebody else has there is left alone.
func TestOpenEmptyIsNot(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "letter.txt")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := datadir.OpenEmpty(root); !errors.Is(err, datadir.ErrNotEmpty) {
		t.Errorf("opened: %v", err)
	}
	if entries, _ := os.ReadDir(root); len(entries) != 1 {
		t.Errorf("%v", entries)
	}
}

// A restore that failed leaves a directory that is empty but for the lock.
func TestAbandon(t *testing.T) {
	root := t.TempDir()
	d, err := datadir.OpenEmpty(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{d.Catalog(), filepath.Join(d.Databases(), "x.db"), filepath.Join(d.History(), "x")} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.Abandon(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 || left[0].Name() != filepath.Base(d.Lock()) {
		t.Errorf("left: %v, %v", left, err)
	}
	if d, err = datadir.OpenEmpty(root); err != nil {
		t.Fatal(err)
	}
	d.Close()
}
