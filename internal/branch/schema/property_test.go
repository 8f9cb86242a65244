package schema_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/branch/schema"
	"github.com/persqld/persqld/internal/sqlite"
)

// editor makes random changes to a schema. What SQLite refuses is left out.
type editor struct {
	*database
	r    *rand.Rand
	name string // begins the names that it makes, some of which the other side makes too
	n    int
}

func (e *editor) pick(list []string) string {
	if len(list) == 0 {
		return "nothing"
	}
	return list[e.r.IntN(len(list))]
}

func (d *database) list(sql string) []string {
	if all := d.rows(sql); all != "" {
		return strings.Split(all, ";")
	}
	return nil
}

func (e *editor) tables() []string {
	return e.list("SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite%'")
}

func (e *editor) fresh() string {
	e.n++
	if e.r.IntN(6) == 0 {
		return fmt.Sprintf("both %d", e.r.IntN(3))
	}
	return fmt.Sprintf("%s%d", e.name, e.n)
}

func (e *editor) columnsOf(table string) []string {
	return e.list("SELECT name FROM pragma_table_xinfo(" + quoteText(table) + ") WHERE hidden=0")
}

func quoteText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// definition is a random column.
func (e *editor) definition(name string) string {
	d := sqlite.Quote(name) + " " + e.pick([]string{"INT", "TEXT", "REAL", "", "BLOB", "ANY", "varchar(5)"})
	switch e.r.IntN(12) {
	case 0:
		d += " NOT NULL DEFAULT 'x'"
	case 1:
		d += " DEFAULT (1+1)"
	case 2:
		d += " CHECK(" + sqlite.Quote(name) + " IS NOT 'no')"
	case 3:
		d += " REFERENCES " + sqlite.Quote(e.pick(e.tables())) + e.pick([]string{"", " ON DELETE CASCADE", " ON DELETE SET NULL ON UPDATE CASCADE", " DEFERRABLE INITIALLY DEFERRED"})
	case 4:
		d += " AS (length(1)) " + e.pick([]string{"", "STORED", "VIRTUAL"})
	case 5:
		d += " COLLATE NOCASE DEFAULT 'a,b)'"
	case 6:
		d += " UNIQUE"
	}
	return d
}

// table is a random CREATE TABLE.
func (e *editor) table(name string) string {
	var cols []string
	options := ""
	switch e.r.IntN(5) {
	case 0:
		cols = append(cols, "k TEXT PRIMARY KEY")
		options = e.pick([]string{"", " WITHOUT ROWID"})
	case 1:
		cols = append(cols, "id INTEGER PRIMARY KEY AUTOINCREMENT")
	case 2:
		cols = append(cols, "id INTEGER")
	default:
		cols = append(cols, "id INTEGER PRIMARY KEY")
	}
	for i := range 1 + e.r.IntN(4) {
		cols = append(cols, e.definition(string(rune('a'+i))))
	}
	return "CREATE TABLE " + sqlite.Quote(name) + "(" + strings.Join(cols, e.pick([]string{", ", ",\n  -- and\n"})) + ")" + options
}

// change makes one change.
func (e *editor) change(remake bool) {
	t := e.pick(e.tables())
	q := sqlite.Quote(t)
	c := e.pick(e.columnsOf(t))
	what := e.r.IntN(14)
	if !remake && what > 11 {
		what = 4
	}
	var sql string
	switch what {
	case 0:
		sql = e.table(e.fresh())
	case 1:
		sql = "DROP TABLE " + q
	case 2, 3, 4:
		sql = "ALTER TABLE " + q + " ADD COLUMN " + e.definition(e.fresh())
	case 5:
		sql = "ALTER TABLE " + q + " DROP COLUMN " + sqlite.Quote(c)
	case 6:
		sql = "ALTER TABLE " + q + " RENAME COLUMN " + sqlite.Quote(c) + " TO " + sqlite.Quote(e.fresh())
	case 7:
		sql = "ALTER TABLE " + q + " RENAME TO " + sqlite.Quote(e.fresh())
	case 8:
		sql = "CREATE INDEX " + sqlite.Quote(e.fresh()) + " ON " + q + "(" + e.pick([]string{sqlite.Quote(c), "lower(" + sqlite.Quote(c) + ")", sqlite.Quote(c) + " DESC"}) + ")" + e.pick([]string{"", " WHERE " + sqlite.Quote(c) + " IS NOT NULL"})
	case 9:
		sql = "CREATE VIEW " + sqlite.Quote(e.fresh()) + " AS SELECT " + sqlite.Quote(c) + " FROM " + q
	case 10:
		sql = "CREATE TRIGGER " + sqlite.Quote(e.fresh()) + " AFTER " + e.pick([]string{"INSERT", "DELETE", "UPDATE"}) + " ON " + q + " BEGIN SELECT " + sqlite.Quote(c) + " FROM " + q + "; END"
	case 11:
		one := e.pick(e.list("SELECT type || ' ' || '\"' || name || '\"' FROM sqlite_schema WHERE type<>'table' AND sql IS NOT NULL"))
		sql = "DROP " + one
	default:
		e.remake(t)
		return
	}
	_ = e.exec(sql) // many make no sense
}

// remake makes a table anew with other columns, and most of its indexes and triggers.
func (e *editor) remake(t string) {
	var cols []string
	err := e.query("SELECT name, type, pk FROM pragma_table_info("+quoteText(t)+")", func(s *sqlite.Stmt) error {
		name, typ := string(s.Column(0).Bytes), string(s.Column(1).Bytes)
		switch {
		case s.Column(2).Int > 0 && typ == "INTEGER":
			cols = append(cols, sqlite.Quote(name)+" INTEGER PRIMARY KEY")
		case s.Column(2).Int > 0:
			cols = append(cols, sqlite.Quote(name)+" "+typ+" PRIMARY KEY")
		case e.r.IntN(6) == 0: // gone
		case e.r.IntN(4) == 0:
			cols = append(cols, e.definition(name))
		default:
			cols = append(cols, sqlite.Quote(name)+" "+typ)
		}
		return nil
	})
	if err != nil || len(cols) == 0 {
		return
	}
	if e.r.IntN(3) == 0 {
		cols = slices.Insert(cols, e.r.IntN(len(cols)+1), e.definition(e.fresh()))
	}
	var rest []string
	for _, o := range e.objects() {
		if (o.Type == "index" || o.Type == "trigger") && o.Table == t && e.r.IntN(4) > 0 {
			rest = append(rest, o.SQL)
		}
	}
	if e.exec("SAVEPOINT remake; DROP TABLE "+sqlite.Quote(t)+"; CREATE TABLE "+sqlite.Quote(t)+"("+strings.Join(cols, ", ")+")") != nil {
		e.must("ROLLBACK TO remake; RELEASE remake")
		e.conn.DropStatements()
		return
	}
	e.must("RELEASE remake")
	for _, sql := range rest {
		_ = e.exec(sql)
	}
}

// fillTables puts rows into every table, as far as their constraints let it.
func (e *editor) fillTables() {
	for range 2 {
		for _, t := range e.tables() {
			cols := e.columnsOf(t)
			for range 4 {
				var into, vals []string
				for _, c := range cols {
					if e.r.IntN(8) == 0 {
						continue
					}
					into = append(into, sqlite.Quote(c))
					vals = append(vals, e.pick([]string{"1", "2", "3", "'7'", "'it''s'", "x'00ff'", "2.5", strconv.Itoa(e.r.IntN(1000))}))
				}
				if len(into) > 0 {
					_ = e.exec("INSERT OR IGNORE INTO " + sqlite.Quote(t) + "(" + strings.Join(into, ",") + ") VALUES(" + strings.Join(vals, ",") + ")")
				}
			}
		}
	}
}

// content is what a table holds of some columns.
func (d *database) content(t string, cols []string) string {
	if len(cols) == 0 {
		return d.rows("SELECT count(*) FROM " + sqlite.Quote(t))
	}
	quoted := make([]string, len(cols))
	for i, c := range cols {
		quoted[i] = "quote(" + sqlite.Quote(c) + ")"
	}
	return d.rows("SELECT " + strings.Join(quoted, "||','||") + " FROM " + sqlite.Quote(t) + " ORDER BY 1")
}

// rowids are a table's, with the key that they may be; "" if it has none.
func (d *database) rowids(t string) string {
	key := d.rows("SELECT name FROM pragma_table_info(" + quoteText(t) + ") WHERE pk>0")
	all := ""
	err := d.query("SELECT rowid FROM "+sqlite.Quote(t)+" ORDER BY 1", func(s *sqlite.Stmt) error {
		all += fmt.Sprintf(" %d", s.Column(0).Int)
		return nil
	})
	if err != nil {
		return ""
	}
	return key + all
}

// kinds are a table's columns that aren't generated, with their types.
func (d *database) kinds(t string) map[string]string {
	m := map[string]string{}
	_ = d.query("SELECT lower(name), type FROM pragma_table_xinfo("+quoteText(t)+") WHERE hidden=0", func(s *sqlite.Stmt) error {
		m[string(s.Column(0).Bytes)] = string(s.Column(1).Bytes)
		return nil
	})
	return m
}

// dangling is what foreign_key_check says of each table; one whose foreign key has no key to refer to is left out.
func (d *database) dangling() string {
	var all []string
	for _, o := range d.objects() {
		if o.Type != "table" {
			continue
		}
		_ = d.query("PRAGMA foreign_key_check("+sqlite.Quote(o.Name)+")", func(s *sqlite.Stmt) error {
			all = append(all, o.Name)
			return nil
		})
	}
	return strings.Join(all, ",")
}

func TestMergeProperty(t *testing.T) {
	n := 100
	if v := os.Getenv("PERSQLD_SCHEMAS"); v != "" {
		n, _ = strconv.Atoi(v)
	}
	first := uint64(1)
	if v := os.Getenv("PERSQLD_SEED"); v != "" {
		first, _ = strconv.ParseUint(v, 10, 64)
	}
	sums := map[string]int{}
	for seed := first; seed < first+uint64(n); seed++ {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) { sums[property(t, seed)]++ })
		if !ok && seed > first+20 {
			break
		}
	}
	t.Logf("%v", sums)
	if n >= 100 && (sums["merged"] < n/4 || sums["conflicts"] < n/20) {
		t.Errorf("too little of one kind: %v", sums)
	}
}

func property(t *testing.T, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 7))
	mine := &editor{openFile(t), r, "p", 0}
	theirs := &editor{openMemory(t), r, "h", 0}
	for i := range 3 + r.IntN(3) {
		_ = mine.exec(mine.table(fmt.Sprintf("t%d", i)))
	}
	for range 4 {
		mine.change(false)
	}
	base := mine.objects()
	theirs.load(base)
	mine.fillTables()
	for range r.IntN(4) {
		mine.change(false)
	}
	for range 1 + r.IntN(7) {
		theirs.change(true)
	}
	p, h := mine.objects(), theirs.objects()

	// With nothing changed on the parent there is no conflict, and what comes out is the branch.
	alone := merge(t, base, base, h)
	if len(alone.Conflicts) > 0 {
		t.Fatalf("conflicts with a parent that didn't change: %+v", alone.Conflicts)
	}
	hand := openMemory(t)
	hand.load(base)
	for _, sql := range alone.Statements {
		hand.must(sql)
	}
	sameSchema(t, byKey(hand.objects()), byKey(h))
	if none := merge(t, base, p, base); !none.Empty() || len(none.Warnings) > 0 {
		t.Errorf("a branch without changes: %+v", none)
	}

	plan := merge(t, base, p, h)
	if len(plan.Conflicts) > 0 {
		return "conflicts"
	}
	dangled := mine.dangling()
	before := mine.texts()
	old := openMemory(t)
	old.load(p)
	hand2 := openMemory(t)
	hand2.load(p)
	contents := map[string]string{}
	columns := map[string]map[string]string{}
	for _, name := range mine.tables() {
		columns[name] = mine.kinds(name)
		contents[name] = mine.content(name, nil)
	}
	// What rows have in columns that are the same afterwards, to be compared after.
	final := openMemory(t)
	final.load(p)
	names := map[string]string{} // tables by what they were named
	renamed := map[string]string{}
	for _, sql := range plan.Statements {
		final.must(sql)
		if from, to, ok := between(sql, "ALTER TABLE ", " RENAME TO "); ok && !strings.HasPrefix(from, "_persql") {
			names[from] = to
		}
		if from, to, ok := between(sql, " RENAME COLUMN ", " TO "); ok {
			table, _, _ := strings.Cut(strings.TrimPrefix(sql, "ALTER TABLE "), " RENAME COLUMN ")
			renamed[strings.Trim(table, `"`)+"."+strings.ToLower(to)] = strings.ToLower(from)
		}
	}
	type kept struct {
		table  string
		cols   []string
		rows   string
		rowids string
	}
	var keeps []kept
	for _, name := range mine.tables() {
		now := name
		if n, ok := names[name]; ok {
			now = n
		}
		if slices.Contains(lostRows(plan), now) {
			continue
		}
		var was, is []string
		for c, typ := range final.kinds(now) {
			from := c
			if f, ok := renamed[now+"."+c]; ok {
				from = f
			}
			if columns[name][from] == typ && (columns[name][from] != "" || has(columns[name], from)) {
				was, is = append(was, from), append(is, c)
			}
		}
		if final.rows("SELECT count(*) FROM sqlite_schema WHERE type='table' AND name="+quoteText(now)) == "1" {
			keeps = append(keeps, kept{now, is, mine.content(name, was), mine.rowids(name)})
		}
	}
	if err := mine.run(plan); err != nil {
		var e *sqlite.Error
		if !strings.Contains(err.Error(), "refer to nothing") && !strings.Contains(err.Error(), "foreign key mismatch") && (!errors.As(err, &e) || e.Code.Primary() != sqlite.CodeConstraint) {
			t.Fatalf("%v\n%s", err, strings.Join(plan.Statements, "\n"))
		}
		if after := mine.texts(); after != before {
			t.Error("a merge that failed left another schema")
		}
		for name, rows := range contents {
			if mine.content(name, nil) != rows {
				t.Errorf("a merge that failed changed %s", name)
			}
		}
		return "rows in the way"
	}
	if got := mine.rows("PRAGMA integrity_check"); got != "ok" {
		t.Errorf("integrity_check: %s\n%s", got, strings.Join(plan.Statements, "\n"))
	}
	if got := mine.dangling(); got != dangled {
		t.Errorf("dangling: %s, before %s", got, dangled)
	}
	for _, sql := range plan.Statements {
		hand2.must(sql)
	}
	if a, b := mine.objects(), hand2.objects(); fmt.Sprint(byKey(a)) != fmt.Sprint(byKey(b)) {
		t.Errorf("by hand the schema is another:\n%v\n%v", a, b)
	}
	for _, k := range keeps {
		if got := mine.content(k.table, k.cols); got != k.rows {
			t.Errorf("table %s, columns %v: %s, want %s\n%s", k.table, k.cols, got, k.rows, strings.Join(plan.Statements, "\n"))
		}
	}
	for _, k := range keeps {
		was, now := k.rowids, mine.rowids(k.table)
		if keyed, _, _ := strings.Cut(was, " "); was != now && was != "" && now != "" && (keyed == "" || strings.HasPrefix(now, keyed+" ")) {
			t.Errorf("table %s has rowids %s, had %s\n%s", k.table, now, was, strings.Join(plan.Statements, "\n"))
		}
	}
	// The reference merges what is left when what was renamed is renamed.
	base2, parent2 := openMemory(t), old
	base2.load(base)
	for _, sql := range plan.Statements {
		if !strings.Contains(sql, " RENAME ") || strings.Contains(sql, "_persql") {
			break
		}
		base2.must(sql)
		parent2.must(sql)
	}
	b2, p2 := base2.objects(), parent2.objects()
	want := reference(b2, p2, h)
	got := byKey(mine.objects())
	for k, o := range byKey(b2) {
		a, c := byKey(p2)[k], byKey(h)[k]
		if o.Type != "table" || a.Type != "table" || c.Type != "table" || schema.Same(&o, &a) || schema.Same(&o, &c) || schema.Same(&a, &c) {
			continue
		}
		// Both sides added columns: the parent's come first.
		all := parent2.list("SELECT name FROM pragma_table_xinfo(" + quoteText(a.Name) + ")")
		for _, col := range theirs.list("SELECT name FROM pragma_table_xinfo(" + quoteText(c.Name) + ")") {
			if !slices.ContainsFunc(all, func(x string) bool { return strings.EqualFold(x, col) }) {
				all = append(all, col)
			}
		}
		if is := mine.list("SELECT name FROM pragma_table_xinfo(" + quoteText(a.Name) + ")"); !slices.Equal(is, all) {
			t.Errorf("table %s has %q, want %q", a.Name, is, all)
		}
		delete(want, k)
		delete(got, k)
	}
	sameSchema(t, got, want)
	if again := merge(t, h, mine.objects(), h); !again.Empty() || len(again.Added)+len(again.Changed)+len(again.Removed) > 0 {
		t.Errorf("merged once more: %+v", again)
	}
	if plan.Empty() {
		return "nothing to do"
	}
	return "merged"
}

func has(m map[string]string, k string) bool { _, ok := m[k]; return ok }

// load makes a schema of its texts.
func (d *database) load(all []schema.Object) {
	d.t.Helper()
	for _, typ := range []string{"table", "index", "view", "trigger"} {
		for _, o := range all {
			if o.Type == typ {
				if err := d.conn.Exec(o.SQL); err != nil {
					d.t.Fatal(err)
				}
			}
		}
	}
}

// between are the names before and behind a word of an ALTER TABLE.
func between(sql, head, word string) (from, to string, ok bool) {
	_, rest, ok1 := strings.Cut(sql, head)
	from, to, ok2 := strings.Cut(rest, word)
	return strings.Trim(from, `"`), strings.Trim(to, `"`), ok1 && ok2
}

// lostRows are the tables that a plan says lose their rows.
func lostRows(p schema.Plan) (names []string) {
	for _, w := range p.Warnings {
		if strings.Contains(w, "its rows are lost") || strings.Contains(w, "removed with its rows") {
			names = append(names, strings.Split(w, `"`)[1])
		}
	}
	return names
}
