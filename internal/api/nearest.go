package api

import (
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// suggest adds to an unknown table or column the nearest names that exist.
func suggest(tx *store.Tx, d *sqlDetail) {
	var wanted, sql string
	var params []sqlite.Param
	switch d.kind {
	case kindUnknownTable:
		wanted = d.table
		sql = "SELECT name FROM sqlite_schema WHERE type IN ('table','view')"
	case kindUnknownColumn:
		wanted = d.column
		sql = "SELECT DISTINCT c.name FROM sqlite_schema s, pragma_table_info(s.name) c WHERE s.type IN ('table','view') AND s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' LIMIT 2000"
		if d.table != "" {
			sql = "SELECT name FROM pragma_table_info(?)"
			params = []sqlite.Param{{Value: sqlite.Value{Kind: sqlite.Text, Bytes: []byte(d.table)}}}
		}
	default:
		return
	}
	if wanted == "" {
		return
	}
	type candidate struct {
		name string
		far  int
	}
	var near []candidate
	err := tx.Query(sql, params, func(s *sqlite.Stmt) error {
		name := string(s.Column(0).Bytes)
		if !gate.IsSystem(name) {
			if far := distance(strings.ToLower(wanted), strings.ToLower(name)); far <= max(2, len(wanted)/3) {
				near = append(near, candidate{name, far})
			}
		}
		return nil
	})
	if err != nil || len(near) == 0 {
		return
	}
	slices.SortFunc(near, func(a, b candidate) int {
		if a.far != b.far {
			return a.far - b.far
		}
		return strings.Compare(a.name, b.name)
	})
	names := make([]string, 0, 3)
	for _, c := range near[:min(3, len(near))] {
		names = append(names, c.name)
	}
	d.hint = "did you mean " + strings.Join(names, ", ") + "?"
}

// distance is the number of letters to change, insert, delete or swap to make b of a (optimal string alignment).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > 64 || len(y) > 64 {
		return 64
	}
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(x)][len(y)]
}
