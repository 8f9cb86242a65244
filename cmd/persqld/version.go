package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/persqld/persqld/internal/sqlite"
)

// rowMeter says how rows read and written are counted.
const rowMeter = "estimated"

type versionCmd struct{}

type versionInfo struct {
	Version       string `json:"version"`
	SQLiteVersion string `json:"sqliteVersion"`
	RowMeter      string `json:"rowMeter"` // "exact" or "estimated"
}

// programVersion is the version that the binary was built as: a module version, else "dev".
func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// sqliteVersion asks SQLite itself.
func sqliteVersion() (version string, err error) {
	dir, err := os.MkdirTemp("", "persqld-version-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	db, err := sqlite.OpenDriver(filepath.Join(dir, "empty.db"), sqlite.DriverOptions{})
	if err != nil {
		return "", err
	}
	defer db.Close()
	err = db.QueryRow(`SELECT sqlite_version()`).Scan(&version)
	return version, err
}

// Run prints the versions.
func (*versionCmd) Run(a *app) error {
	engine, err := sqliteVersion()
	if err != nil {
		return fmt.Errorf("ask SQLite for its version: %w", err)
	}
	v := versionInfo{Version: programVersion(), SQLiteVersion: engine, RowMeter: rowMeter}
	return a.print(v, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "persqld %s (SQLite %s, row meter %s)\n", v.Version, v.SQLiteVersion, v.RowMeter)
		return err
	})
}
