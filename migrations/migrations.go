// Package migrations holds the catalog's schema as numbered SQL files, embedded in the program and applied when the
// catalog is opened. A file that has been released is never changed: a later one alters what it made.
package migrations

import "embed"

// FS holds the migrations, named <version>_<name>.sql, in goose's format.
//
//go:embed *.sql
var FS embed.FS
