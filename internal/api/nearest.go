package api

import (
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// suggest adds to an unknown table or column the nearest names that exist and that the caller may see.
func suggest(tx *store.Tx, c *gate.Caller, d *sqlDetail) {
	seen := func() []string {
		return slices.DeleteFunc(namesOf(tx, objectsSQL), func(name string) bool { return !c.Sees(name) })
	}
	switch d.kind {
	case kindUnknownTable:
		d.hint = nearest(d.table, seen())
	case kindUnknownColumn:
		if d.table != "" && c.Sees(d.table) {
			d.hint = nearest(d.column, namesOf(tx, columnsSQL, textParam(d.table)...))
		}
		if d.hint != "" {
			return
		}
		// The statement named no table, or an alias. Table by table: one that can't be read hides no other.
		names := seen()
		var columns []string
		for _, t := range names[:min(len(names), 500)] {
			if !gate.IsSystem(t) {
				columns = append(columns, namesOf(tx, columnsSQL, textParam(t)...)...)
			}
		}
		slices.Sort(columns)
		d.hint = nearest(d.column, slices.Compact(columns))
	}
}

const columnsSQL = "SELECT name FROM pragma_table_xinfo(?) WHERE hidden<>1"

// namesOf is the first column of a query, as far as it goes.
func namesOf(tx *store.Tx, sql string, params ...sqlite.Param) (names []string) {
	// An error here must not hide the one that is being explained.
	_ = tx.Query(sql, params, func(s *sqlite.Stmt) error {
		names = append(names, string(s.Column(0).Bytes))
		return nil
	})
	return names
}

// nearest asks whether one of the names that are most like the wanted one was meant; "" if none is like it.
func nearest(wanted string, names []string) string {
	if wanted == "" {
		return ""
	}
	type candidate struct {
		name string
		far  int
	}
	var near []candidate
	for _, name := range names {
		if !gate.IsSystem(name) {
			if far := distance(strings.ToLower(wanted), strings.ToLower(name)); far <= max(2, len(wanted)/3) {
				near = append(near, candidate{name, far})
			}
		}
	}
	if len(near) == 0 {
		return ""
	}
	slices.SortFunc(near, func(a, b candidate) int {
		if a.far != b.far {
			return a.far - b.far
		}
		return strings.Compare(a.name, b.name)
	})
	meant := make([]string, 0, 3)
	for _, c := range near[:min(3, len(near))] {
		meant = append(meant, c.name)
	}
	return "did you mean " + strings.Join(meant, ", ") + "?"
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
