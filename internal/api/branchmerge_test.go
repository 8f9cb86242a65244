package api_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
)

// everything is a database as text: its schema, and the rows of its tables with their columns' names.
func (g *grove) everything(slug string) string {
	g.t.Helper()
	var b strings.Builder
	for _, table := range g.tablesOf(slug) {
		columns := g.columnsOf(slug, table)
		rows := g.sql(g.secret, http.StatusOK, slug, "SELECT group_concat(concat_ws(',', rowid, "+columns+"), ' ' ORDER BY rowid) FROM "+table)
		fmt.Fprintf(&b, "%s(%s): %s\n", table, columns, rows)
	}
	return b.String()
}

func (g *grove) tablesOf(slug string) []string {
	return strings.Fields(g.sql(g.secret, http.StatusOK, slug, "SELECT coalesce(group_concat(name, ' ' ORDER BY name), '') FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"))
}

func (g *grove) columnsOf(slug, table string) string {
	return g.sql(g.secret, http.StatusOK, slug, "SELECT group_concat(name, ',') FROM pragma_table_info('"+table+"')")
}

// merge merges a branch, rows and all, and tells with what status and answer.
func (g *grove) merge(ref string) (status int, answer string) {
	g.t.Helper()
	return g.mergeInto("shop", ref)
}

func (g *grove) mergeInto(slug, ref string) (status int, answer string) {
	g.t.Helper()
	a := g.send(g.secret, "POST", "/v1/db/acme/"+slug+"/branches/"+ref+"/merge", `{"mode":"full"}`)
	return a.status, strings.ReplaceAll(string(a.raw), `\"`, `"`)
}

// two is a shop with a second table.
func two(t *testing.T) *grove {
	g := newShop(t)
	for _, sql := range []string{"CREATE TABLE c(id INTEGER PRIMARY KEY, x, y)", "INSERT INTO c VALUES(1, 'x1', 'y1'), (2, 'x2', 'y2'), (7, 'x7', 'y7')"} {
		g.sql(g.secret, http.StatusOK, "shop", sql)
	}
	return g
}

// Where the parent did nothing, a merge of all makes the branch of it, whatever the branch did to its tables and columns; and merged once more it does nothing.
func TestMergeMakesTheBranch(t *testing.T) {
	for _, sqls := range [][]string{
		{"ALTER TABLE a RENAME TO b"},
		{"ALTER TABLE a RENAME TO b", "ALTER TABLE b ADD COLUMN n DEFAULT 1"},
		{"ALTER TABLE a RENAME COLUMN owner TO holder"},
		{"ALTER TABLE a RENAME COLUMN owner TO holder", "ALTER TABLE a ADD COLUMN n"},
		{"ALTER TABLE a RENAME TO b", "CREATE TABLE a(id INTEGER PRIMARY KEY, x)", "INSERT INTO a VALUES(1, 'new')"},
		{"DROP TABLE c", "ALTER TABLE a RENAME TO c"},
		{"ALTER TABLE a RENAME TO z", "ALTER TABLE c RENAME TO a", "ALTER TABLE z RENAME TO c"},
		{"ALTER TABLE a RENAME TO z", "ALTER TABLE c RENAME TO a"},
		{"ALTER TABLE a RENAME TO z", "ALTER TABLE z RENAME TO A"},
		{"ALTER TABLE c DROP COLUMN x", "ALTER TABLE c RENAME COLUMN y TO x"},
		{"ALTER TABLE c RENAME COLUMN x TO z", "ALTER TABLE c RENAME COLUMN y TO x", "ALTER TABLE c RENAME COLUMN z TO y"},
		{"ALTER TABLE c RENAME COLUMN x TO X"},
		{"CREATE TABLE new(id INTEGER PRIMARY KEY, who TEXT)", "INSERT INTO new SELECT id, owner FROM a", "DROP TABLE a", "ALTER TABLE new RENAME TO a"},
		{"ALTER TABLE a RENAME TO old", "CREATE TABLE a(id INTEGER PRIMARY KEY, owner TEXT, note)", "INSERT INTO a(id, owner) SELECT id, owner FROM old", "DROP TABLE old"},
		{"CREATE TABLE keep AS SELECT * FROM c", "DROP TABLE c", "CREATE TABLE c(id INTEGER PRIMARY KEY, y, x)", "INSERT INTO c(id, x, y) SELECT id, x, y FROM keep", "DROP TABLE keep"},
		{"ALTER TABLE c RENAME COLUMN y TO z", "UPDATE c SET z = 'changed' WHERE id = 1", "DELETE FROM c WHERE id = 2"},
		{"ALTER TABLE c RENAME TO d", "ALTER TABLE d RENAME COLUMN y TO z", "UPDATE d SET z = 'changed' WHERE id = 1", "INSERT INTO d VALUES(9, 9, 9)"},
		{"UPDATE c SET x = 'before'", "ALTER TABLE c RENAME TO d", "DROP TABLE a", "ALTER TABLE d RENAME TO a"},
		{"CREATE INDEX i ON c(x)", "CREATE VIEW v AS SELECT x, y FROM c", "ALTER TABLE c RENAME COLUMN x TO z", "ALTER TABLE c RENAME TO d"},
	} {
		g := two(t)
		slug, _ := g.claim("x", `,"content":"full"`)
		for _, sql := range sqls {
			g.sql(g.secret, http.StatusOK, slug, sql)
		}
		for range 2 {
			status, data := g.merge("x")
			if got, want := g.everything("shop"), g.everything(slug); got != want || status != http.StatusOK {
				t.Errorf("%s:\n%swant\n%s%d %s", strings.Join(sqls, "; "), got, want, status, data)
			}
		}
	}
}

// The same with what hangs on tables: keys, triggers, views, indexes, generated columns; and with tables that keep their rows otherwise.
func TestMergeMakesTheWholeBranch(t *testing.T) {
	setup := []string{
		"CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT UNIQUE)", "INSERT INTO p VALUES(1,'a'),(2,'b')",
		"CREATE TABLE k(id INTEGER PRIMARY KEY, pid INTEGER NOT NULL REFERENCES p(id) ON DELETE CASCADE, n, g AS (n*2))", "INSERT INTO k(id,pid,n) VALUES(1,1,10),(2,2,20)",
		"CREATE TABLE w(a TEXT, b INT, v, PRIMARY KEY(a,b)) WITHOUT ROWID", "INSERT INTO w VALUES('x',1,1),('y',2,2)",
		"CREATE VIRTUAL TABLE docs USING fts5(title, body)", "INSERT INTO docs VALUES('t1','b1'),('t2','b2')",
		"CREATE TABLE log(m)", "CREATE TRIGGER tr AFTER UPDATE ON p BEGIN INSERT INTO log VALUES(new.name); END",
		"CREATE VIEW v AS SELECT p.name, k.n FROM p JOIN k ON k.pid=p.id", "CREATE INDEX ki ON k(n)",
	}
	look := func(g *grove, slug string) string {
		var b strings.Builder
		b.WriteString(g.sql(g.secret, http.StatusOK, slug, "SELECT group_concat(type||' '||name||' '||tbl_name, ', ' ORDER BY type, name) FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"))
		for _, table := range g.tablesOf(slug) {
			if strings.HasPrefix(table, "docs_") || strings.HasPrefix(table, "pages_") {
				continue // FTS5's own
			}
			columns := g.sql(g.secret, http.StatusOK, slug, "SELECT group_concat(name, ',') FROM pragma_table_xinfo('"+table+"') WHERE hidden<>1")
			fmt.Fprintf(&b, "\n%s(%s): %s", table, columns, g.sql(g.secret, http.StatusOK, slug, "SELECT group_concat(concat_ws(',', "+columns+"), ' ' ORDER BY 1) FROM (SELECT * FROM "+table+")"))
		}
		return b.String()
	}
	for _, sqls := range [][]string{
		{"ALTER TABLE p RENAME TO people"},
		{"ALTER TABLE p RENAME COLUMN name TO label", "UPDATE p SET label='z' WHERE id=1"},
		{"ALTER TABLE p RENAME TO people", "ALTER TABLE people RENAME COLUMN id TO pid", "INSERT INTO people VALUES(5,'five')", "INSERT INTO k(id,pid,n) VALUES(9,5,1)"},
		{"ALTER TABLE w RENAME TO w2", "ALTER TABLE w2 RENAME COLUMN a TO aa", "UPDATE w2 SET v=9 WHERE b=1", "DELETE FROM w2 WHERE b=2", "INSERT INTO w2 VALUES('n',3,3)"},
		{"ALTER TABLE docs RENAME TO pages", "INSERT INTO pages VALUES('t3','b3')", "DELETE FROM pages WHERE title='t1'"},
		{"ALTER TABLE k RENAME COLUMN n TO num", "UPDATE k SET num=11 WHERE id=1"},
		{"ALTER TABLE k RENAME TO kids", "ALTER TABLE p RENAME TO k", "ALTER TABLE kids RENAME TO p"},
		{"DROP TRIGGER tr", "DROP VIEW v", "DROP TABLE k", "ALTER TABLE p RENAME TO k"},
		{"DROP VIEW v", "DROP INDEX ki", "ALTER TABLE k DROP COLUMN g", "ALTER TABLE k RENAME COLUMN n TO g"},
		{"ALTER TABLE k ADD COLUMN extra DEFAULT 5", "ALTER TABLE k RENAME COLUMN extra TO more", "UPDATE k SET more=6 WHERE id=2"},
		{"DROP TABLE docs", "CREATE VIRTUAL TABLE docs USING fts5(title, body)", "INSERT INTO docs VALUES('new','new')"},
		{"CREATE TABLE w3(a TEXT, b INT, v, extra, PRIMARY KEY(a,b)) WITHOUT ROWID", "INSERT INTO w3 SELECT a,b,v,'e' FROM w", "DROP TABLE w", "ALTER TABLE w3 RENAME TO w"},
		{"DROP VIEW v", "ALTER TABLE k RENAME COLUMN n TO m", "CREATE VIEW v AS SELECT p.name, k.m FROM p JOIN k ON k.pid=p.id"},
		{"DROP VIEW v", "DROP TABLE k", "ALTER TABLE p RENAME TO k", "CREATE VIEW v AS SELECT name FROM k"},
		{"DROP INDEX ki", "DROP VIEW v", "ALTER TABLE k DROP COLUMN g", "ALTER TABLE k DROP COLUMN n", "ALTER TABLE k ADD COLUMN more", "ALTER TABLE k RENAME COLUMN more TO extra"},
	} {
		g := newShop(t)
		for _, sql := range setup {
			g.sql(g.secret, http.StatusOK, "shop", sql)
		}
		slug, _ := g.claim("x", `,"content":"full"`)
		for _, sql := range sqls {
			g.sql(g.secret, http.StatusOK, slug, sql)
		}
		for range 2 {
			status, data := g.merge("x")
			if got, want := look(g, "shop"), look(g, slug); got != want || status != http.StatusOK {
				t.Errorf("%s:\n%s\nwant\n%s\n%d %s", strings.Join(sqls, "; "), got, want, status, data)
			}
		}
	}
}

// What can't be told is a conflict, and changes nothing.
func TestRenamesInConflict(t *testing.T) {
	for _, tt := range []struct {
		branch, parent []string
		reason         string
	}{
		{[]string{"ALTER TABLE a RENAME TO b"}, []string{"DROP TABLE a"}, `"a" was renamed "b" on the branch, and the parent has removed or renamed it`},
		{[]string{"ALTER TABLE a RENAME TO b"}, []string{"CREATE TABLE b(id INTEGER PRIMARY KEY)"}, `"a" was renamed "b" on the branch, and the parent has given the name to another`},
		{[]string{"ALTER TABLE c RENAME COLUMN x TO z"}, []string{"ALTER TABLE c ADD COLUMN z"}, `"x" was renamed "z" on the branch, and the parent has given the name to another`},
		{[]string{"ALTER TABLE c RENAME COLUMN x TO z"}, []string{"ALTER TABLE c DROP COLUMN x"}, `"x" was renamed "z" on the branch, and the parent has removed or renamed it`},
		{[]string{"DROP TABLE c", "ALTER TABLE a RENAME TO c"}, []string{"ALTER TABLE c ADD COLUMN n"}, `"a" was renamed "c" on the branch, and the parent has changed what is affected`},
		// Log rotation: merged twice it would lose the rows of the first time.
		{[]string{"DROP TABLE c", "ALTER TABLE a RENAME TO c", "CREATE TABLE a(id INTEGER PRIMARY KEY, owner TEXT)"}, nil, `"a" was renamed "c" on the branch, and whether the parent has that already can't be told by the names`},
	} {
		g := two(t)
		slug, _ := g.claim("x", `,"content":"full"`)
		for _, sql := range tt.branch {
			g.sql(g.secret, http.StatusOK, slug, sql)
		}
		for _, sql := range tt.parent {
			g.sql(g.secret, http.StatusOK, "shop", sql)
		}
		before := g.everything("shop")
		status, data := g.merge("x")
		if status != http.StatusConflict || !strings.Contains(data, tt.reason) || g.everything("shop") != before {
			t.Errorf("%v and %v: %d %s", tt.branch, tt.parent, status, data)
		}
	}
}

// The parent's rows that the branch never saw go along with the names.
func TestRenameCarriesTheParentsRows(t *testing.T) {
	g := two(t)
	slug, _ := g.claim("x", `,"content":"full"`)
	for _, sql := range []string{"ALTER TABLE c RENAME TO d", "ALTER TABLE d RENAME COLUMN x TO z", "UPDATE d SET z = 'branch' WHERE id = 1"} {
		g.sql(g.secret, http.StatusOK, slug, sql)
	}
	for _, sql := range []string{"INSERT INTO c VALUES(8, 'x8', 'y8')", "UPDATE c SET x = 'parent' WHERE id = 7"} {
		g.sql(g.secret, http.StatusOK, "shop", sql)
	}
	status, data := g.merge("x")
	if got, want := g.sql(g.secret, http.StatusOK, "shop", "SELECT group_concat(concat_ws(',', id, z, y), ' ' ORDER BY id) FROM d"), "1,branch,y1 2,x2,y2 7,parent,y7 8,x8,y8"; got != want || status != http.StatusOK {
		t.Errorf("%s, want %s: %d %s", got, want, status, data)
	}
}

// A branch of a branch is merged into that, whose recording sees the tables made anew, and with it into the root.
func TestMergeUpTheTree(t *testing.T) {
	for _, sqls := range [][]string{
		{"ALTER TABLE c RENAME TO d", "ALTER TABLE d RENAME COLUMN x TO z", "UPDATE d SET z = 'leaf' WHERE id = 1"},
		{"CREATE TABLE new(id INTEGER PRIMARY KEY, y NOT NULL, x TEXT)", "INSERT INTO new(id, x, y) SELECT id, x, y FROM c", "DROP TABLE c", "ALTER TABLE new RENAME TO c", "DELETE FROM c WHERE id = 7"}, // a rebuild
		{"ALTER TABLE a RENAME TO z", "ALTER TABLE c RENAME TO a", "ALTER TABLE z RENAME TO c"},
		{"DROP TABLE a", "INSERT INTO c VALUES(9, 'x9', 'y9')"},
	} {
		g := two(t)
		x, _ := g.claim("x", `,"content":"full"`)
		g.sql(g.secret, http.StatusOK, x, "UPDATE c SET y = 'branch' WHERE id = 2")
		data := g.ask(g.secret, http.StatusOK, "POST", "/v1/db/acme/"+x+"/claim_branch", `{"ref":"y","content":"full"}`)
		y, _ := data["databaseSlug"].(string)
		for _, sql := range sqls {
			g.sql(g.secret, http.StatusOK, y, sql)
		}
		for _, into := range [][2]string{{x, "y"}, {"shop", "x"}} {
			status, answer := g.mergeInto(into[0], into[1])
			if got, want := g.everything(into[0]), g.everything(y); got != want || status != http.StatusOK {
				t.Errorf("%s into %s:\n%swant\n%s%d %s", strings.Join(sqls, "; "), into[0], got, want, status, answer)
			}
		}
	}
}

// A policy would not follow a table to another name.
func TestMergeRenamesNoPolicied(t *testing.T) {
	g := two(t)
	slug, _ := g.claim("x", `,"content":"full"`)
	g.sql(g.secret, http.StatusOK, slug, "ALTER TABLE a RENAME TO b")
	g.ask(g.secret, http.StatusOK, "POST", "/v1/db/acme/shop/policies", `{"name":"own","tableName":"a","expression":"owner = :auth_user_id"}`)
	before := g.everything("shop")
	if status, data := g.merge("x"); status != http.StatusForbidden || !strings.Contains(data, "row-level policies") || g.everything("shop") != before {
		t.Errorf("%d %s", status, data)
	}
}

// Random changes of schema and rows on the branch: a merge makes the branch of an untouched parent, or says no and changes nothing; and a second one does nothing.
func TestMergeOfRandomBranches(t *testing.T) {
	seeds := 20
	if n, err := strconv.Atoi(os.Getenv("PERSQLD_BRANCHES")); err == nil {
		seeds = n // as many as one has time for
	}
	said, did, back := 0, 0, 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 1))
			g := two(t)
			slug, _ := g.claim("x", `,"content":"full"`)
			var ran []string
			names := []string{"a", "c", "d", "e"}
			columns := []string{"x", "y", "z", "owner"}
			for range 3 + r.IntN(7) {
				tables := g.tablesOf(slug)
				var sql string
				pick := func(list []string) string { return list[r.IntN(len(list))] }
				if len(tables) == 0 {
					break
				}
				table := pick(tables)
				have := strings.Split(g.columnsOf(slug, table), ",")
				column := have[len(have)-1]
				if len(have) > 2 {
					column = pick(have[1:])
				}
				switch r.IntN(9) {
				case 0, 1:
					sql = "ALTER TABLE " + table + " RENAME TO " + pick(names)
				case 2, 3:
					sql = "ALTER TABLE " + table + " RENAME COLUMN " + column + " TO " + pick(columns)
				case 4:
					sql = "ALTER TABLE " + table + " DROP COLUMN " + column
				case 5:
					name := pick(columns)
					sql = "ALTER TABLE " + table + " ADD COLUMN " + name
				case 6:
					sql = "UPDATE " + table + " SET " + column + " = 'u" + fmt.Sprint(r.IntN(100)) + "' WHERE id % 2 = " + fmt.Sprint(r.IntN(2))
				case 7:
					sql = "DROP TABLE " + table
				case 8:
					sql = "CREATE TABLE " + pick(names) + "(id INTEGER PRIMARY KEY, x, y)"
				}
				if g.send(g.secret, "POST", "/v1/db/acme/"+slug+"/query", fmt.Sprintf(`{"sql":%q}`, sql)).status == http.StatusOK {
					ran = append(ran, sql)
				}
			}
			before, want := g.everything("shop"), g.everything(slug)
			for n := range 2 {
				status, data := g.merge("x")
				got := g.everything("shop")
				switch {
				case status == http.StatusOK && got == want:
					did++
				case status == http.StatusOK && strings.Contains(data, "was removed and added again"):
					back++ // its values stay, as the merge says; see the DESIGN.md of schema
				case n == 0 && status == http.StatusConflict && got == before:
					said++
				default:
					t.Errorf("seed %d, merge %d: %s\n%swant\n%s%d %s", seed, n+1, strings.Join(ran, "; "), got, want, status, data)
				}
				if got != want {
					break
				}
			}
		})
	}
	if did < seeds || said+back > seeds/3 {
		t.Errorf("%d merges did, %d said no", did, said)
	}
	t.Logf("%d merges did, %d said no, %d left values of columns that came back", did, said, back)
}

// A rule on the old name of a table stops a merge that renames it, as one on the new name does.
func TestMergeRenamesPastNoRule(t *testing.T) {
	for _, glob := range []string{"a", "b"} {
		g := two(t)
		slug, _ := g.claim("x", `,"content":"full"`)
		g.sql(g.secret, http.StatusOK, slug, "ALTER TABLE a RENAME TO b")
		g.ask(g.secret, http.StatusOK, "POST", "/v1/db/acme/shop/approval-rules", fmt.Sprintf(`{"tableGlob":%q,"action":"deny","operations":["ddl"]}`, glob))
		before := g.everything("shop")
		if status, data := g.merge("x"); status != http.StatusForbidden || !strings.Contains(data, "approval_denied") || g.everything("shop") != before {
			t.Errorf("%s: %d %s", glob, status, data)
		}
	}
}
