package datadir_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/datadir"
)

// TestMain lets the test binary be the second process: with this variable it opens the directory and says how it went.
func TestMain(m *testing.M) {
	path := os.Getenv("DATADIR_TEST_OPEN")
	if path == "" {
		os.Exit(m.Run())
	}
	dir, err := datadir.Open(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	dir.Close()
}

func otherProcess(t *testing.T, path string) (output string, err error) {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), "DATADIR_TEST_OPEN="+path)
	out, err := command.CombinedOutput()
	return string(out), err
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{path, dir.Databases(), dir.Temp()} {
		if info, err := os.Stat(folder); err != nil || info.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s: %v, %v", folder, info, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir.Temp(), "left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := datadir.Open(path); !errors.Is(err, datadir.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	output, err := otherProcess(t, path)
	if err == nil || !strings.Contains(output, fmt.Sprintf("held by process %d", os.Getpid())) {
		t.Errorf("another process: %q, %v", output, err)
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	if output, err := otherProcess(t, path); err != nil {
		t.Errorf("after it was let go: %q, %v", output, err)
	}
	if left, err := os.ReadDir(dir.Temp()); err != nil || len(left) != 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

func TestOpenRefusesFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := datadir.Open(path); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("got %v", err)
	}
}

func TestMeter(t *testing.T) {
	root := t.TempDir()
	for name, n := range map[string]int{"a/x.db": 4096, "a/x.db-wal": 100, "b/y.db": 8192} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := datadir.NewMeter(root).Bytes(), int64(4096+100+8192); got != want {
		t.Errorf("got %d bytes, want %d", got, want)
	}
}
