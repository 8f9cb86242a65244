package rows_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/branch/rows"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

var world = []string{
	"CREATE TABLE ip(id INTEGER PRIMARY KEY, a, u UNIQUE, r REAL, g AS (a||u))",
	"CREATE TABLE pk(k TEXT PRIMARY KEY COLLATE NOCASE, v)",
	"CREATE TABLE wo(a, b, v, PRIMARY KEY(a, b)) WITHOUT ROWID",
	"CREATE TABLE wn(k TEXT PRIMARY KEY COLLATE NOCASE, v) WITHOUT ROWID",
	"CREATE TABLE plain(a, b)",
	"CREATE TABLE par(id INTEGER PRIMARY KEY, n)",
	"CREATE TABLE chi(id INTEGER PRIMARY KEY, p REFERENCES par ON DELETE CASCADE ON UPDATE CASCADE)",
	"CREATE TABLE seq(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
	"CREATE TABLE log(id INTEGER PRIMARY KEY, what)",
	"CREATE TRIGGER ip_u AFTER UPDATE ON ip BEGIN INSERT INTO log VALUES(old.id*100+random()%40, new.a); END",
	"CREATE TRIGGER pk_d AFTER DELETE ON pk BEGIN UPDATE par SET n=old.v WHERE id=length(old.k); END",
	"CREATE VIRTUAL TABLE f USING fts5(x, y)",
	"CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1, +note)",
}

// kept is how the test itself reads a table: the columns of its key first.
type kept struct {
	name, sql string
	keys      int
	fold      bool
}

var tables = []kept{
	{"ip", "SELECT id, a, u, r FROM ip", 1, false}, {"pk", "SELECT k, v FROM pk", 1, true}, {"wo", "SELECT a, b, v FROM wo", 2, false}, {"wn", "SELECT k, v FROM wn", 1, true},
	{"plain", "SELECT rowid, a, b FROM plain", 1, false}, {"par", "SELECT id, n FROM par", 1, false}, {"chi", "SELECT id, p FROM chi", 1, false},
	{"seq", "SELECT id, v FROM seq", 1, false}, {"log", "SELECT id, what FROM log", 1, false}, {"f", "SELECT rowid, x, y FROM f", 1, false}, {"r", "SELECT id, x0, x1, y0, y1, note FROM r", 1, false},
}

// randomEdit is a statement; it may fail.
func randomEdit(rng *rand.Rand) string {
	id := func() int { return 1 + rng.IntN(14) }
	value := func() string {
		return []string{"NULL", "1", "1.0", "2.5", "'1'", "'x'", "x'01'", "x''", "''", strconv.Itoa(rng.IntN(5)), "'" + strings.Repeat("long", 60) + "'"}[rng.IntN(11)]
	}
	word := func() string {
		w := string(rune('a'+rng.IntN(7))) + strings.Repeat("z", rng.IntN(2))
		if rng.IntN(2) == 0 {
			w = strings.ToUpper(w)
		}
		return "'" + w + "'"
	}
	part := func() string { return []string{"1", "1.0", "2", "'1'", "'a'", "2.5", "x'01'"}[rng.IntN(7)] }
	or := []string{"", "OR REPLACE ", "OR IGNORE ", "OR FAIL "}[rng.IntN(4)]
	s := fmt.Sprintf
	return []func() string{
		func() string {
			return s("INSERT %sINTO ip(id,a,u,r) VALUES(%d,%s,%d,%s)", or, id(), value(), rng.IntN(20), value())
		},
		func() string {
			return s("INSERT %sINTO ip(id,a,u,r) VALUES(%d,%s,%d,1),(%d,2,%d,3)", or, id(), value(), rng.IntN(20), id(), rng.IntN(20))
		},
		func() string { return s("UPDATE %sip SET u=%d, a=%s WHERE id=%d", or, rng.IntN(20), value(), id()) },
		func() string { return s("UPDATE %sip SET id=%d WHERE id=%d", or, id(), id()) },
		func() string { return s("UPDATE %sip SET u=u+1 WHERE id<%d", or, id()) },
		func() string {
			return s("INSERT INTO ip(id,a,u) VALUES(%d,'up',%d) ON CONFLICT(id) DO UPDATE SET a=a||'+'", id(), rng.IntN(20))
		},
		func() string { return s("DELETE FROM ip WHERE id=%d", id()) },
		func() string { return s("INSERT %sINTO pk VALUES(%s,%s)", or, word(), value()) },
		func() string { return s("UPDATE %spk SET k=%s WHERE k=%s", or, word(), word()) },
		func() string { return s("UPDATE pk SET v=%s WHERE k=%s", value(), word()) },
		func() string { return s("DELETE FROM pk WHERE k=%s", word()) },
		func() string { return s("INSERT %sINTO wn VALUES(%s,%s)", or, word(), value()) },
		func() string { return s("UPDATE %swn SET k=%s WHERE k=%s", or, word(), word()) },
		func() string { return s("DELETE FROM wn WHERE k=%s", word()) },
		func() string { return s("INSERT %sINTO wo VALUES(%s,%s,%s)", or, part(), part(), value()) },
		func() string { return s("UPDATE %swo SET a=%s WHERE b=%s", or, part(), part()) },
		func() string { return s("UPDATE wo SET v=%s WHERE b=%s", value(), part()) },
		func() string { return s("DELETE FROM wo WHERE a=%s", part()) },
		func() string { return s("INSERT INTO plain VALUES(%s,%s)", value(), value()) },
		func() string { return s("UPDATE plain SET b=%s WHERE rowid=%d", value(), id()) },
		func() string { return s("DELETE FROM plain WHERE rowid=%d", id()) },
		func() string { return s("INSERT %sINTO par VALUES(%d,%s)", or, id(), value()) },
		func() string { return s("UPDATE par SET id=%d WHERE id=%d", id(), id()) },
		func() string { return s("DELETE FROM par WHERE id=%d", id()) },
		func() string { return s("INSERT %sINTO chi VALUES(%d,%d)", or, id(), id()) },
		func() string { return s("UPDATE chi SET p=%d WHERE id=%d", id(), id()) },
		func() string { return s("DELETE FROM chi WHERE id=%d", id()) },
		func() string { return s("INSERT INTO seq(v) VALUES(%s)", value()) },
		func() string { return s("DELETE FROM seq WHERE id=%d", id()) },
		func() string { return s("INSERT INTO f(rowid,x,y) VALUES(%d,%s,%s)", id(), word(), value()) },
		func() string { return s("UPDATE f SET x=%s WHERE rowid=%d", word(), id()) },
		func() string { return s("DELETE FROM f WHERE rowid=%d", id()) },
		func() string {
			return s("INSERT %sINTO r VALUES(%d,%d,%d.5,0,1,%s)", or, id(), rng.IntN(3), 4+rng.IntN(3), word())
		},
		func() string { return s("UPDATE r SET x1=%d, note=%s WHERE id=%d", 5+rng.IntN(4), word(), id()) },
		func() string { return s("DELETE FROM r WHERE id=%d", id()) },
		func() string { return []string{"DELETE FROM plain", "DELETE FROM wo", "DELETE FROM log"}[rng.IntN(3)] },
	}[rng.IntN(36)]()
}

// content is what a database holds, read row by row: by table, and by key as SQLite compares it.
type content map[string]map[string][]string

func (h *house) content(db string) content {
	h.t.Helper()
	all := content{}
	err := h.do(db, func(tx *store.Tx) error {
		for _, t := range tables {
			rows := map[string][]string{}
			all[t.name] = rows
			err := tx.Query(t.sql, nil, func(st *sqlite.Stmt) error {
				var row, key []string
				for i := range st.Columns() {
					v := st.Column(i)
					row = append(row, exact(v))
					if i >= t.keys {
						continue
					}
					k := exact(v)
					if v.Kind == sqlite.Real {
						k = strings.TrimSuffix(strconv.FormatFloat(v.Float, 'f', -1, 64), ".0")
					}
					if t.fold {
						k = strings.ToLower(k)
					}
					key = append(key, k)
				}
				rows[strings.Join(key, "|")] = row
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

func exact(v sqlite.Value) string {
	if v.Kind == sqlite.Real {
		return "real " + strconv.FormatFloat(v.Float, 'g', -1, 64)
	}
	return show(v)
}

// reference merges three contents plainly.
func reference(base, branch, parent content, theirs bool) (merged content, conflicts int64) {
	merged = content{}
	for _, t := range tables {
		out := map[string][]string{}
		merged[t.name] = out
		keys := map[string]bool{}
		for _, c := range []content{base, branch, parent} {
			for k := range c[t.name] {
				keys[k] = true
			}
		}
		for k := range keys {
			b, mine, yours := base[t.name][k], branch[t.name][k], parent[t.name][k]
			same := func(x, y []string) bool { return (x == nil) == (y == nil) && slices.Equal(x, y) }
			result := yours
			switch {
			case same(mine, b), same(mine, yours):
			case same(yours, b):
				result = mine
			default:
				conflicts++
				if theirs {
					result = mine
				}
			}
			if result != nil {
				out[k] = result
			}
		}
	}
	return merged, conflicts
}

// possible tells whether a content keeps the constraints.
func possible(c content) bool {
	seen := map[string]bool{}
	for _, row := range c["ip"] {
		u := strings.TrimPrefix(row[2], "real ")
		if u != "NULL" && seen[u] {
			return false
		}
		seen[u] = true
	}
	for _, row := range c["chi"] {
		if _, ok := c["par"][row[1]]; !ok && row[1] != "NULL" {
			return false
		}
	}
	return true
}

func (c content) String() string {
	var lines []string
	for t, rows := range c {
		for k, row := range rows {
			lines = append(lines, fmt.Sprint(t, " ", k, " ", row))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Random edits on both sides come to what a merge that reads all of both would come to.
func TestMergeEqualsReference(t *testing.T) {
	merges, stopped, clashes := 0, 0, int64(0)
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := newHouse(t, world...)
		edit := func(db string, n int) {
			err := h.do(db, func(tx *store.Tx) error {
				for range n {
					st, _, err := tx.Prepare([]byte(randomEdit(rng)))
					if err != nil {
						t.Error(err)
						continue
					}
					tx.Run(st, nil, nil) // what fails has no part in it
					st.Done()
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		edit(parent, 120)
		base := h.content(parent)
		h.fork()
		for range 1 + rng.IntN(4) {
			edit(branch, rng.IntN(40))
		}
		edit(parent, rng.IntN(80))
		mine, yours := h.content(branch), h.content(parent)
		for _, theirs := range []bool{false, true} {
			want, conflicts := reference(base, mine, yours, theirs)
			on := rows.Ours
			if theirs {
				on = rows.Theirs
			}
			preview, err := h.merge(rows.Options{Preview: true})
			if err != nil || preview.ConflictCount != conflicts || len(preview.Conflicts) != int(min(conflicts, 100)) {
				t.Fatalf("seed %d: %v, %d conflicts, want %d: %+v", seed, err, preview.ConflictCount, conflicts, preview.Conflicts)
			}
			if conflicts > 0 && !theirs {
				clashes += conflicts
				if _, err := h.merge(rows.Options{}); !errors.Is(err, rows.ErrConflict) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if got := h.content(parent); got.String() != yours.String() {
					t.Fatalf("seed %d: a merge with conflicts changed the parent", seed)
				}
			}
			// Tried on the parent, and undone, for the other way to begin with the same.
			var got content
			undone := errors.New("undone")
			var c *rows.Changes
			if err := h.do(branch, func(tx *store.Tx) (err error) { c, err = rows.Collect(tx, h.dir); return err }); err != nil {
				t.Fatal(err)
			}
			err = h.do(parent, func(tx *store.Tx) error {
				if _, err := rows.Merge(tx, c, rows.Options{OnConflict: on, Dir: h.dir}); err != nil {
					return err
				}
				if theirs {
					return nil
				}
				got = content{}
				return undone
			})
			c.Close()
			merges++
			switch {
			case errors.Is(err, rows.ErrConflict):
				stopped++
				if possible(want) {
					t.Fatalf("seed %d: stopped, and the result is possible", seed)
				}
				continue
			case err != nil && err != undone:
				t.Fatalf("seed %d: %v", seed, err)
			case !possible(want):
				t.Fatalf("seed %d: merged, and the result is impossible", seed)
			}
			if err == undone {
				if r, err := h.merge(rows.Options{OnConflict: on}); err != nil {
					t.Fatalf("seed %d: %v %+v", seed, err, r)
				}
			}
			got = h.content(parent)
			if got.String() != want.String() {
				t.Fatalf("seed %d, theirs %v:\n got %s\nwant %s", seed, theirs, got, want)
			}
			if bad := h.rows(parent, "PRAGMA integrity_check"); bad[0] != `"ok"` {
				t.Fatalf("seed %d: %v", seed, bad)
			}
			h.must(parent, "INSERT INTO f(f) VALUES('integrity-check')")
			yours = got // the second way begins with what the first left
		}
	}
	t.Logf("%d merges, %d impossible, %d conflicts", merges, stopped, clashes)
	if stopped == 0 || stopped > merges/2 || clashes < 100 {
		t.Error("the edits show too little")
	}
}
