package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/datadir"
)

// openAs opens and closes the directory as a version with these steps.
func openAs(t *testing.T, path string, steps ...func(datadir.Layout) error) error {
	t.Helper()
	dir, err := datadir.OpenWith(path, steps...)
	if err != nil {
		return err
	}
	return dir.Close()
}

func formatOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(datadir.Layout(path).Format())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestNewDirectoryHasTheNewestFormat(t *testing.T) {
	never := func(datadir.Layout) error { t.Error("a step ran in an empty directory"); return nil }
	path := filepath.Join(t.TempDir(), "d")
	if err := openAs(t, path, never, never); err != nil {
		t.Fatal(err)
	}
	if got := formatOf(t, path); got != "3" {
		t.Errorf("format %s, want 3", got)
	}
}

// A made-up version 3 opens directories of before, also when it was killed in the middle; version 1 refuses what it made.
func TestUpgrade(t *testing.T) {
	for _, withFile := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "d")
		layout := datadir.Layout(path)
		dir, err := datadir.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		dir.Close()
		if err := os.WriteFile(layout.Catalog(), []byte("catalog"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !withFile { // a directory of before there was one
			if err := os.Remove(layout.Format()); err != nil {
				t.Fatal(err)
			}
		}
		runs := [2]int{}
		killed := errors.New("killed")
		moved := filepath.Join(path, "moved.db")
		first := func(l datadir.Layout) error {
			runs[0]++
			return os.WriteFile(filepath.Join(l.Root(), "beside"), nil, 0o600)
		}
		second := func(l datadir.Layout) error { // finds its own work done
			runs[1]++
			if _, err := os.Stat(l.Catalog()); err == nil {
				if err := os.Rename(l.Catalog(), moved); err != nil {
					return err
				}
			}
			if runs[1] == 1 {
				return killed
			}
			return nil
		}
		if err := openAs(t, path, first, second); !errors.Is(err, killed) || !strings.Contains(err.Error(), "from format 2 to 3") {
			t.Errorf("got %v, want the step's error", err)
		}
		if got := formatOf(t, path); got != "2" {
			t.Errorf("format %s after half of it, want 2", got)
		}
		for range 2 {
			if err := openAs(t, path, first, second); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := os.ReadFile(moved); err != nil || string(text) != "catalog" {
			t.Errorf("what was moved: %q, %v", text, err)
		}
		if runs != [2]int{1, 2} || formatOf(t, path) != "3" {
			t.Errorf("runs %v, format %s", runs, formatOf(t, path))
		}

		if err := os.WriteFile(filepath.Join(layout.Temp(), "left"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = datadir.Open(path)
		if !errors.Is(err, datadir.ErrNewer) || !strings.Contains(err.Error(), "has format 3") || !strings.Contains(err.Error(), "knows format 1") {
			t.Errorf("an older version: %v", err)
		}
		if _, err := os.Stat(filepath.Join(layout.Temp(), "left")); err != nil {
			t.Errorf("an older version emptied the folder of temporary files: %v", err)
		}
	}
}

func TestDamagedFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	if err := openAs(t, path); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "x", "0", "-1", "1 2"} {
		if err := os.WriteFile(datadir.Layout(path).Format(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := openAs(t, path); err == nil || !strings.Contains(err.Error(), "no format's number") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
