package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// finding is one remark of the doctor's.
type finding struct {
	Severity string `json:"severity"` // "error", "warning" or "info"
	Code     string `json:"code"`
	Table    string `json:"table"`
	Column   string `json:"column,omitempty"`
	Message  string `json:"message"`
	Fix      string `json:"fix,omitempty"`
}

const (
	severe  = "error"
	warning = "warning"
	remark  = "info"
)

// doctor serves GET …/doctor.
func (s *Server) doctor(x *exchange) error {
	var report []finding
	if err := x.openDatabase(false); err != nil {
		return err
	}
	heavy := s.heavyStatements(x.r.Context(), x.database.ID)
	err := x.do(store.JobFunc(func(tx *store.Tx) error {
		info, err := readSchema(tx, &x.gate.Caller, true)
		if err != nil {
			return err
		}
		report = examine(&info)
		scans, err := scannedTables(tx, heavy, &info)
		report = append(report, scans...)
		return err
	}))
	if err != nil {
		return err
	}
	ok := true
	for _, f := range report {
		ok = ok && f.Severity == remark
	}
	if report == nil {
		report = []finding{}
	}
	return x.reply(struct {
		OK       bool      `json:"ok"`
		Findings []finding `json:"findings"`
	}{ok, report})
}

// examine looks at the schema alone.
func examine(info *schemaInfo) []finding {
	var report []finding
	described := info.Description != nil
	for i := range info.Tables {
		t := &info.Tables[i]
		if t.broken != "" {
			report = append(report, finding{Severity: severe, Code: "broken_table", Table: t.Table, Message: "The table can't be read: " + t.broken,
				Fix: "bring back what it needs, or DROP TABLE " + quoteName(t.Table)})
		}
		if t.virtual {
			continue
		}
		report = append(report, keyFindings(t)...)
		report = append(report, foreignKeyFindings(t, info)...)
		report = append(report, indexFindings(t)...)
		report = append(report, typeFindings(t)...)
		described = described || t.Description != nil
		for j := range t.Columns {
			described = described || t.Columns[j].Description != nil
		}
	}
	if len(info.Tables) > 0 && !described {
		report = append(report, finding{Severity: remark, Code: "no_descriptions", Message: "Nothing in the schema is described; an agent has only the names to go by",
			Fix: "PUT …/describe"})
	}
	return report
}

func keyFindings(t *tableInfo) []finding {
	for i := range t.Columns {
		if t.Columns[i].PrimaryKey {
			return nil
		}
	}
	return []finding{{Severity: warning, Code: "no_primary_key", Table: t.Table,
		Message: "The table has no primary key: its rows can't be named, and two may be equal",
		Fix:     "make the table anew with an INTEGER PRIMARY KEY, and copy the rows"}}
}

func foreignKeyFindings(t *tableInfo, info *schemaInfo) []finding {
	var report []finding
	for i := range t.ForeignKeys {
		fk := &t.ForeignKeys[i]
		parent := info.table(fk.ReferencesTable)
		if parent == nil {
			report = append(report, finding{Severity: severe, Code: "fk_unknown_table", Table: t.Table, Column: fk.Column,
				Message: fmt.Sprintf("The foreign key refers to the table %s, which doesn't exist: every insert fails", fk.ReferencesTable)})
			continue
		}
		if fk.seq > 0 {
			continue // the key's first column decides whether an index helps
		}
		indexed := len(t.Columns) > 0 && isOnlyKey(t, fk.Column)
		for _, ix := range t.Indexes {
			indexed = indexed || len(ix.Columns) > 0 && strings.EqualFold(ix.Columns[0], fk.Column) && !ix.partial
		}
		if !indexed && !t.uniqueFirst(fk.Column) {
			report = append(report, finding{Severity: warning, Code: "fk_without_index", Table: t.Table, Column: fk.Column,
				Message: fmt.Sprintf("No index begins with the foreign key's column: each delete in %s reads this whole table", fk.ReferencesTable),
				Fix:     fmt.Sprintf("CREATE INDEX %s ON %s(%s)", quoteName(t.Table+"_"+fk.Column), quoteName(t.Table), quoteName(fk.Column))})
		}
	}
	return report
}

// isOnlyKey tells whether the column is the whole primary key.
func isOnlyKey(t *tableInfo, column string) bool {
	keys := 0
	is := false
	for i := range t.Columns {
		if t.Columns[i].PrimaryKey {
			keys++
			is = is || strings.EqualFold(t.Columns[i].Name, column)
		}
	}
	return is && keys == 1
}

// uniqueFirst tells whether an index that SQLite made for a constraint begins with the column.
func (t *tableInfo) uniqueFirst(column string) bool {
	for _, first := range t.constraints {
		if strings.EqualFold(first, column) {
			return true
		}
	}
	return false
}

func (info *schemaInfo) table(name string) *tableInfo {
	for i := range info.Tables {
		if strings.EqualFold(info.Tables[i].Table, name) {
			return &info.Tables[i]
		}
	}
	return nil
}

func indexFindings(t *tableInfo) []finding {
	var report []finding
	for i := range t.Indexes {
		a := &t.Indexes[i]
		if a.partial || slices.Contains(a.Columns, "<expression>") {
			continue
		}
		for j := range t.Indexes {
			b := &t.Indexes[j]
			if i == j || b.partial || len(b.Columns) < len(a.Columns) || !slices.EqualFunc(a.Columns, b.Columns[:len(a.Columns)], strings.EqualFold) {
				continue
			}
			same := len(a.Columns) == len(b.Columns)
			if same && (j > i || a.Unique && !b.Unique) || !same && a.Unique {
				continue // named once; a unique index does more than its columns
			}
			f := finding{Severity: warning, Code: "redundant_index", Table: t.Table,
				Message: fmt.Sprintf("The index %s is the beginning of the index %s, which does its work too", a.Name, b.Name)}
			if same {
				f.Code, f.Message = "duplicate_index", fmt.Sprintf("The index %s has the same columns as %s", a.Name, b.Name)
			}
			f.Fix = "DROP INDEX " + quoteName(a.Name)
			report = append(report, f)
			break
		}
	}
	return report
}

// affinity is what SQLite makes of a declared type (https://sqlite.org/datatype3.html, section 3.1).
func affinity(declared string) string {
	up := strings.ToUpper(declared)
	switch {
	case strings.Contains(up, "INT"):
		return "INTEGER"
	case strings.Contains(up, "CHAR"), strings.Contains(up, "CLOB"), strings.Contains(up, "TEXT"):
		return "TEXT"
	case up == "", strings.Contains(up, "BLOB"):
		return "BLOB"
	case strings.Contains(up, "REAL"), strings.Contains(up, "FLOA"), strings.Contains(up, "DOUB"):
		return "REAL"
	}
	return "NUMERIC"
}

func typeFindings(t *tableInfo) []finding {
	var report []finding
	for i := range t.Columns {
		c := &t.Columns[i]
		got := affinity(c.Type)
		up := strings.ToUpper(c.Type)
		var want string
		switch {
		case got == "NUMERIC" && containsAny(up, "STRING", "UUID", "JSON", "ENUM", "EMAIL", "URL"):
			want = "TEXT" // "007" becomes 7
		case got == "INTEGER" && strings.Contains(up, "POINT"):
			want = "REAL" // FLOATING POINT ends in INT
		case got == "NUMERIC" && containsAny(up, "BYTES", "BINARY"):
			want = "BLOB"
		default:
			continue
		}
		report = append(report, finding{Severity: warning, Code: "type_affinity", Table: t.Table, Column: c.Name,
			Message: fmt.Sprintf("SQLite takes the type %s for %s, so that values which look like numbers are changed", c.Type, got),
			Fix:     "declare the column as " + want})
	}
	return report
}

func containsAny(s string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

const (
	heavyRows  = 1000 // rows that a statement reads on average to be called heavy
	heavyTimes = 5    // runs of it in the query log to be called frequent
	heavyMax   = 20   // such statements that are looked at
)

// heavyStatements are the statements of the query log that read many rows, often.
func (s *Server) heavyStatements(ctx context.Context, id string) []string {
	if s.opt.QueryLog == nil {
		return nil
	}
	rows, err := s.opt.QueryLog.Read(ctx, id, querylog.Filter{Limit: 2000})
	if err != nil {
		return nil
	}
	type use struct{ times, rows int64 }
	uses := map[string]*use{}
	for _, r := range rows {
		if r.SQL == "" || r.Status != "ok" {
			continue
		}
		u := uses[r.SQL]
		if u == nil {
			u = &use{}
			uses[r.SQL] = u
		}
		u.times++
		u.rows += r.RowsRead
	}
	var heavy []string
	for sql, u := range uses {
		if u.times >= heavyTimes && u.rows/u.times >= heavyRows {
			heavy = append(heavy, sql)
		}
	}
	slices.Sort(heavy)
	return heavy[:min(len(heavy), heavyMax)]
}

// onlyBig is the one big table that a statement reads; nil if there are several, or none.
func (info *schemaInfo) onlyBig(st *sqlite.Stmt) *tableInfo {
	var big *tableInfo
	for i := range st.Accesses {
		if st.Accesses[i].Action != sqlite.Read {
			continue
		}
		t := info.table(st.Accesses[i].Name)
		if t == nil || t == big || t.rows() < heavyRows {
			continue
		}
		if big != nil {
			return nil
		}
		big = t
	}
	return big
}

// scannedTables asks SQLite for the plans of heavy statements and names the big tables that they read whole.
func scannedTables(tx *store.Tx, heavy []string, info *schemaInfo) ([]finding, error) {
	found := map[string]bool{}
	for _, sql := range heavy {
		st, _, err := tx.Prepare([]byte(explainPrefix + sql))
		if err != nil || st == nil {
			continue // cut in the log, or of an earlier schema
		}
		var scans []string
		_, err = tx.Run(st, nulls(st.Params()), func(s *sqlite.Stmt) error {
			if rest, ok := strings.CutPrefix(string(s.Column(3).Bytes), "SCAN "); ok && !strings.Contains(rest, " USING ") {
				scans = append(scans, rest)
			}
			return nil
		})
		for _, name := range scans {
			t := info.table(name)
			if t == nil { // the plan names an alias; if the statement reads one big table, it is that
				t = info.onlyBig(st)
			}
			if t != nil && t.rows() >= heavyRows {
				found[t.Table] = true
			}
		}
		st.Done()
		if err != nil {
			return nil, err
		}
	}
	var report []finding
	for i := range info.Tables {
		if name := info.Tables[i].Table; found[name] {
			report = append(report, finding{Severity: warning, Code: "often_scanned", Table: name,
				Message: fmt.Sprintf("Frequent statements read all %d rows of the table", info.Tables[i].rows()),
				Fix:     "look at their plans with POST …/explain, and make an index on the columns that they filter by"})
		}
	}
	return report, nil
}
