package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

// spoils generates statements over the schema watched that reach for the table "safe" in every way it has.
type spoils struct{ *rand.Rand }

func (g spoils) one(list ...string) string { return list[g.IntN(len(list))] }

func (g spoils) id() string { return fmt.Sprint(1 + g.IntN(8)) }

func (g spoils) table() string {
	return g.one("safe", "safe", "safe", `"Safe"`, "main.safe", "[SAFE]", "free", "v_safe", "v_safe", "gun", "chain", "parent", "conf", "v_free", "safe_worid")
}

func (g spoils) where() string {
	return g.one("", "", " WHERE id = "+g.id(), " WHERE id < "+g.id(), " WHERE id IN (SELECT id FROM free)", " WHERE EXISTS (SELECT 1 FROM safe)", " WHERE 1 /* safe */")
}

func (g spoils) with() string {
	return g.one("", "", "WITH safe2(a) AS (VALUES("+g.id()+")) ", "WITH x AS (SELECT * FROM safe) ")
}

func (g spoils) insert() string {
	verb := g.one("INSERT", "INSERT OR REPLACE", "REPLACE", "INSERT OR IGNORE", "INSERT OR FAIL", "INSERT OR ABORT")
	switch t := g.one("safe", "safe", "v_safe", "free", "gun", "chain", "conf", "safe_worid", "parent"); t {
	case "gun", "chain", "parent":
		return fmt.Sprintf("%s INTO %s VALUES(%s)", verb, t, g.id())
	case "conf":
		return fmt.Sprintf("%s INTO conf VALUES(%s, %s)", verb, g.id(), g.id())
	case "safe_worid":
		return fmt.Sprintf("%s INTO safe_worid VALUES('%s', %s)", verb, g.one("a", "b", "c"), g.id())
	case "v_safe":
		return fmt.Sprintf("INSERT INTO v_safe(u, v) VALUES(%d, 'n')", g.IntN(100000))
	default:
		rows := fmt.Sprintf("VALUES(%s, %s, 'n'), (%s, %d, 'm')", g.id(), g.id(), g.id(), g.IntN(100))
		if g.IntN(3) == 0 {
			rows = fmt.Sprintf("SELECT id + %s, u + %d, v FROM free", g.id(), g.IntN(100))
		}
		upsert := ""
		if verb == "INSERT" {
			upsert = g.one("", " ON CONFLICT DO NOTHING", " ON CONFLICT(u) DO UPDATE SET v = 'up'", " ON CONFLICT(id) DO UPDATE SET v = 'up' ON CONFLICT(u) DO NOTHING")
			if strings.HasPrefix(rows, "SELECT") && upsert != "" {
				rows += " WHERE true"
			}
		}
		return fmt.Sprintf("%s%s INTO %s(id, u, v) %s%s%s", g.with(), verb, t, rows, upsert, g.one("", " RETURNING id"))
	}
}

func (g spoils) statement() string {
	switch g.IntN(10) {
	case 0, 1, 2:
		return g.insert()
	case 3, 4:
		return g.with() + "DELETE FROM " + g.table() + g.where()
	case 5, 6:
		switch t := g.table(); t {
		case "gun", "chain", "parent":
			return fmt.Sprintf("%sUPDATE %s SET id = id + %d%s", g.one("", "", g.with()), t, 10+g.IntN(50), g.where())
		case "safe_worid":
			return fmt.Sprintf("UPDATE OR REPLACE safe_worid SET k = '%s', v = %s", g.one("a", "b", "z"), g.id())
		case "conf", "v_free":
			return fmt.Sprintf("UPDATE %s SET u = %s%s", t, g.id(), g.where())
		case "v_safe":
			return "UPDATE v_safe SET v = 'w'" + g.where()
		default:
			return fmt.Sprintf("UPDATE %s%s SET v = v || 'x', u = u + %d%s", g.one("", "OR REPLACE ", "OR IGNORE "), t, g.IntN(3), g.where())
		}
	case 7:
		return g.one("CREATE TRIGGER IF NOT EXISTS t_"+g.id()+" AFTER INSERT ON free BEGIN DELETE FROM safe WHERE id = new.id; END",
			"CREATE TRIGGER IF NOT EXISTS t_"+g.id()+" AFTER UPDATE ON free BEGIN INSERT OR REPLACE INTO safe(id, u) VALUES(new.id, new.u); END",
			"CREATE TABLE IF NOT EXISTS kid_"+g.id()+"(p REFERENCES safe(id) ON DELETE CASCADE)",
			"CREATE VIEW IF NOT EXISTS w_"+g.id()+" AS SELECT * FROM safe",
			"CREATE TRIGGER IF NOT EXISTS w_t"+g.id()+" INSTEAD OF INSERT ON v_free BEGIN DELETE FROM safe WHERE u = new.u; END")
	case 8:
		return g.one("INSERT INTO free(u) VALUES("+fmt.Sprint(g.IntN(100000))+")", "UPDATE free SET v = 'y'", "INSERT INTO v_free(u) VALUES("+g.id()+")", "DELETE FROM setnull")
	default:
		return g.one("ALTER TABLE safe ADD COLUMN c"+fmt.Sprint(g.IntN(1000)), "ALTER TABLE safe RENAME COLUMN v TO v", "DROP INDEX IF EXISTS safe_v", "CREATE INDEX IF NOT EXISTS safe_v ON safe(v)", "REINDEX safe", "ANALYZE safe", "ALTER TABLE free RENAME TO free")
	}
}

// hashOfSafe is the content of what the rule is about.
const hashOfSafe = `SELECT json_array((SELECT json_group_array(json_array(id, u, v)) FROM safe), (SELECT json_group_array(json_array(k, v)) FROM safe_worid), (SELECT json_group_array(json_array(id, p)) FROM safe_kids),
	(SELECT sql FROM sqlite_schema WHERE name = 'safe'), (SELECT seq FROM sqlite_sequence WHERE name = 'safe'))`

// spoil sends generated statements, alone and in batches, and returns how often what the rule is about was another after one.
func spoil(t *testing.T, admin *harness.Client, d *harness.DB, n int, guarded bool) (changed int) {
	t.Helper()
	d.Batch(true, watched...).OK()
	if guarded {
		admin.Post(d.Path("approval-rules"), body{"tableGlob": "safe*", "action": "deny"}).OK()
	}
	g := spoils{rand.New(rand.NewPCG(9, 2026))}
	last := d.One(hashOfSafe)
	for i := range n {
		var a *harness.Answer
		what := ""
		if g.IntN(5) == 0 {
			list := []any{g.statement(), g.statement(), g.statement()}
			what = fmt.Sprint(list)
			a = d.Batch(g.IntN(2) == 0, list...)
		} else {
			what = g.statement()
			a = d.Query(what)
		}
		if a.Status >= 500 {
			t.Fatalf("%s: %d", what, a.Status)
		}
		now := d.One(hashOfSafe)
		if now != last {
			changed++
			if guarded {
				t.Fatalf("statement %d, %s, changed what a rule denies: %s, then %s", i, what, last, now)
			}
		}
		last = now
		if !guarded && i%5 == 4 { // so that there is something to spoil
			d.Batch(true, "DELETE FROM safe", "DELETE FROM safe_kids", "DELETE FROM parent", "DELETE FROM free", "DELETE FROM gun", "DELETE FROM chain", "INSERT INTO parent VALUES(1),(2),(3)",
				"INSERT INTO safe(id, u, v) VALUES(1,1,'a'),(2,2,'b'),(3,3,'c'),(4,4,'d'),(5,5,'e')", "INSERT INTO safe_kids VALUES(1,1),(2,2)", "INSERT OR IGNORE INTO free(u) VALUES(1),(2)")
			last = d.One(hashOfSafe)
		}
	}
	return changed
}

// What a rule denies never changes, whatever is sent; and without it the same statements change it often enough.
func TestDeniedTableNeverChanges(t *testing.T) {
	row(t, "DP-RUL-4")
	const n = 4000
	s := harness.Start(t, binary, harness.Options{})
	admin := s.Client(t, harness.Token)
	if changed := spoil(t, admin, admin.DB("open"), n, false); changed < 1000 {
		t.Errorf("without the rule %d of %d changed the table: the generator is too weak", changed, n)
	}
	spoil(t, admin, admin.DB("guarded"), n, true)
}
