package catalog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/migrations"
)

// Inspection is what a catalog's file holds, as far as it can be read.
type Inspection struct {
	Schema    int      // the migrations that it has
	Known     int      // those that this version knows
	Problems  []string // what is wrong with the file
	Databases []InspectedDatabase
	Complete  bool // Databases are all there are
}

// InspectedDatabase is a database's row.
type InspectedDatabase struct {
	ID              string
	Namespace       string // its slug; empty if there is no such namespace
	Slug            string
	DeletedAt       time.Time // zero if it lives
	RestorableUntil time.Time // zero if it can't be brought back
}

// Inspect reads the file of a catalog that nobody has open, and changes nothing. It reads as much as a damaged file lets
// it; the error says that it can't be read at all.
func Inspect(path string, full bool, t *sqlite.Thread) (in Inspection, err error) {
	if in.Known, err = knownSchema(); err != nil {
		return in, err
	}
	conn, err := sqlite.OpenInspection(path, t)
	if err != nil {
		return in, fmt.Errorf("open catalog: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	problem := func(what string, err error) {
		if err != nil {
			in.Problems = append(in.Problems, what+": "+err.Error())
		}
	}
	found, err := conn.Examine(full)
	in.Problems = append(in.Problems, found...)
	problem("examine the file", err)
	problem("read the schema's version", conn.EachRow("SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied", func(s *sqlite.Stmt) error {
		in.Schema = int(s.Column(0).Int)
		return nil
	}))
	problem("look for rows without their parents", conn.EachRow("PRAGMA foreign_key_check", func(s *sqlite.Stmt) error {
		in.Problems = append(in.Problems, fmt.Sprintf("row %d of table %s belongs to no row of %s", s.Column(1).Int, s.Column(0).Bytes, s.Column(2).Bytes))
		return nil
	}))
	until := "restorable_until"
	if in.Schema == 1 {
		until = "NULL"
	}
	slug := "n.slug"
	if in.Schema >= 6 {
		slug = "coalesce(n.former_slug, n.slug)" // of a namespace that is deleted
	}
	err = conn.EachRow(`SELECT d.id, coalesce(`+slug+`, ''), d.slug, d.deleted_at, `+until+` FROM databases d LEFT JOIN namespaces n ON n.id = d.namespace_id`, func(s *sqlite.Stmt) error {
		in.Databases = append(in.Databases, InspectedDatabase{ID: string(s.Column(0).Bytes), Namespace: string(s.Column(1).Bytes), Slug: string(s.Column(2).Bytes),
			DeletedAt: optionalMillis(s.Column(3)), RestorableUntil: optionalMillis(s.Column(4))})
		return nil
	})
	problem("read the databases", err)
	in.Complete = err == nil && len(found) == 0
	return in, nil
}

func optionalMillis(v sqlite.Value) time.Time {
	if v.Kind != sqlite.Integer {
		return time.Time{}
	}
	return fromMillis(v.Int)
}

// knownSchema is the version of the last migration.
func knownSchema() (int, error) {
	files, err := migrations.FS.ReadDir(".")
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	number, _, _ := strings.Cut(files[len(files)-1].Name(), "_")
	return strconv.Atoi(number)
}
