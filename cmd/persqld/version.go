package main

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/persqld/persqld/internal/sqlite"
)

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

// Run prints the versions.
func (*versionCmd) Run(a *app) error {
	v := versionInfo{Version: programVersion(), SQLiteVersion: sqlite.Version(), RowMeter: sqlite.RowMeter()}
	return a.print(v, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "persqld %s (SQLite %s, row meter %s)\n", v.Version, v.SQLiteVersion, v.RowMeter)
		return err
	})
}
