package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

const shop = "db_shopshopshop"

// What is written is in the replica a second later, and nothing is done while nothing is written.
func TestShip(t *testing.T) {
	w := newWorld(t)
	w.exec(shop, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	for i := range 20 {
		w.exec(shop, fmt.Sprintf("INSERT INTO t(b) VALUES('row %d')", i))
		w.pass(time.Second)
		w.round()
		if n, _ := w.ship.Behind(); n != 0 {
			t.Fatalf("%d databases behind", n)
		}
		if got := w.same(shop); got[len(got)-1] != uint64(i+2) {
			t.Fatalf("after row %d: %v", i, got)
		}
	}
	if got := w.same(shop); len(got) != 20 {
		t.Errorf("positions %v, want 2 to 21", got)
	}
	for range 10 {
		w.pass(time.Hour)
		w.round()
	}
	if len(w.ship.tracks) != 0 {
		t.Errorf("something is left to be done: %+v", w.ship.tracks[shop])
	}
	if n := w.bucket.count(databasePrefix(shop), levelSync); n != 0 {
		t.Errorf("%d files of level 0 are left", n)
	}
	before := w.bucket.ops["list"]
	w.pass(100 * time.Hour)
	w.round()
	if w.bucket.ops["list"] != before {
		t.Error("an idle database is listed")
	}
	w.same(shop)
}

// Random lives: bursts, pauses, imports, restarts and outages. The replica is what the history is, its moments are near enough to each other, and there is no hole.
func TestShipRandomLives(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t)
			r := rand.New(rand.NewPCG(seed, 77))
			w.exec(shop, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
			out := 0
			for range 150 {
				switch k := r.IntN(40); {
				case k < 20:
					for range 1 + r.IntN(3) {
						w.exec(shop, fmt.Sprintf("INSERT INTO t(b) VALUES(hex(randomblob(%d)))", r.IntN(4000)))
						w.pass(time.Duration(r.IntN(3000)) * time.Millisecond)
					}
				case k < 22:
					w.exec(shop, "DELETE FROM t WHERE a % 3 = 0")
				case k == 22:
					w.exec(shop, "VACUUM")
				case k == 23:
					w.replace(r)
				case k == 24:
					w.restart(r.IntN(2) == 0)
				case k == 25:
					out = 1 + r.IntN(6)
				case k == 26:
					w.pass(time.Duration(r.IntN(7200)) * time.Second)
				case k == 27:
					if err := w.Base(t.Context(), shop); err != nil {
						t.Fatal(err)
					}
				}
				w.pass(time.Duration(r.IntN(2500)) * time.Millisecond)
				w.bucket.failing(nil)
				if out > 0 {
					out--
					w.bucket.failing(func(op, _ string) error {
						if r.IntN(4) > 0 {
							return errors.New("out of order")
						}
						return nil
					})
				}
				w.round()
			}
			w.bucket.failing(nil)
			w.exec(shop, "INSERT INTO t(b) VALUES('last')")
			for range 4 {
				w.pass(2 * time.Minute)
				w.round()
			}
			if n, _ := w.ship.Behind(); n != 0 {
				t.Fatalf("%d databases behind", n)
			}
			w.same(shop)
			for range 10 {
				w.pass(time.Hour)
				w.round()
			}
			w.apart(w.same(shop))
		})
	}
}

// apart checks that moments that are there are at most 30 s apart; a second more for what a round takes.
func (w *world) apart(there []uint64) {
	w.t.Helper()
	for i := 1; i < len(there); i++ {
		if there[i] == there[i-1]+1 {
			continue
		}
		first, err := w.past.TimeOf(shop, there[i-1]+1)
		if err != nil {
			w.t.Fatal(err)
		}
		last, err := w.past.TimeOf(shop, there[i])
		if err != nil {
			w.t.Fatal(err)
		}
		if d := time.Duration(last-first) * time.Millisecond; d > momentEvery+5*time.Second {
			w.t.Fatalf("positions %d and %d are %s apart", there[i-1]+1, there[i], d)
		}
	}
}

// replace has another file take the database's place.
func (w *world) replace(r *rand.Rand) {
	w.t.Helper()
	err := w.Rebuild(w.t.Context(), shop, store.FromPast, nil, func(path string) error {
		th := sqlite.NewThread()
		defer th.Close()
		c, err := sqlite.OpenScratch(sqlite.Scratch{Path: path}, th)
		if err != nil {
			return err
		}
		err = errors.Join(c.Exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b)"), c.Exec(fmt.Sprintf("INSERT INTO t(b) VALUES(hex(randomblob(%d)))", r.IntN(9000))), c.Close())
		if err != nil {
			return err
		}
		// Its first opening would say in the file that it has a log, without a transaction: then the same position has two sets of bytes.
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte{2, 2}, 18)
		return errors.Join(err, f.Close())
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// restart is a stop and a start, with what the shipper remembered or without.
func (w *world) restart(remembers bool) {
	w.t.Helper()
	if remembers {
		w.ship.saveState()
	}
	if err := w.Close(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.start()
	if remembers {
		w.ship.loadState()
	}
	w.ship.reconcile()
}

// What a former run shipped isn't looked for, and what it didn't is.
func TestReconcile(t *testing.T) {
	w := newWorld(t)
	const other, never = "db_otherotherot", "db_nevernevern"
	for _, id := range []string{shop, other} {
		w.exec(id, "CREATE TABLE t(a)")
	}
	w.pass(time.Second)
	w.round()
	w.exec(other, "INSERT INTO t VALUES(1)")
	if err := w.Create(t.Context(), never); err != nil {
		t.Fatal(err)
	}
	w.restart(true)
	lists := w.bucket.ops["list"]
	w.pass(time.Second)
	w.round()
	w.same(shop)
	w.same(other)
	if n := w.bucket.ops["list"] - lists; n != 2 {
		t.Errorf("%d listings, want one of what was written and one of what never was", n)
	}
	if n := w.bucket.count(databasePrefix(never), levelSnapshot); n != 0 {
		t.Error("a database that was never written has a snapshot")
	}
}

// A database that is made of a file is shipped though nothing is ever written to it, also if it is in the trash by then, and if the process knew nothing of it. Of one that
// was undone nothing is left to do.
func TestShipMadeOfAFile(t *testing.T) {
	w := newWorld(t)
	w.exec(shop, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1),(2)")
	made := func(id string) {
		t.Helper()
		path := filepath.Join(w.root, "tmp", id)
		if err := errors.Join(w.Copy(t.Context(), shop, path), w.CreateFrom(t.Context(), id, path)); err != nil {
			t.Fatal(err)
		}
	}
	const alive, ended, undone, unknown, last = "db_madealivealiv", "db_madeendedende", "db_madeundoneund", "db_madeunknownun", "db_madelastlastl"
	made(alive)
	made(ended)
	made(undone)
	if err := errors.Join(w.Retire(t.Context(), ended), w.Delete(t.Context(), undone)); err != nil {
		t.Fatal(err)
	}
	if n, _ := w.ship.Behind(); n != 4 {
		t.Errorf("%d databases are behind, want 4", n)
	}
	w.pass(time.Second)
	w.round()
	if n, _ := w.ship.Behind(); n != 0 {
		t.Errorf("%d databases are behind at last", n)
	}
	w.same(alive)
	if n := w.bucket.count(databasePrefix(undone), levelSnapshot); n != 0 {
		t.Error("what was undone has a snapshot")
	}
	if n := w.bucket.count(databasePrefix(ended), levelSnapshot); n != 1 {
		t.Errorf("what is in the trash has %d snapshots", n)
	}
	if err := w.Admit(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	w.same(ended)
	w.exec(alive, "INSERT INTO t VALUES(3)")
	w.exec(ended, "INSERT INTO t VALUES(4)")
	w.pass(time.Second)
	w.round()
	w.same(alive)
	w.same(ended)

	made(unknown)
	w.restart(false)
	w.pass(time.Second)
	w.round()
	w.same(unknown)

	// Where the store is closed by then it is said that the replica doesn't have it.
	made(last)
	if err := w.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.ship.flush(t.Context())
	if n, _ := w.ship.Behind(); n != 1 {
		t.Errorf("%d databases are behind at the end, want 1", n)
	}
}

// A replica that has more than the server does is left alone.
func TestShipDiverged(t *testing.T) {
	w := newWorld(t)
	w.exec(shop, "CREATE TABLE t(a)")
	w.exec(shop, "INSERT INTO t VALUES(1)")
	w.pass(time.Second)
	w.round()
	other := newWorld(t)
	other.bucket = w.bucket
	other.start()
	before := fmt.Sprint(w.bucket.objects)
	other.exec(shop, "CREATE TABLE t(a)")
	other.pass(time.Second)
	err := other.ship.ship(t.Context(), &track{id: shop}, true)
	var diverged *DivergedError
	if !errors.As(err, &diverged) || diverged.Replica != 2 || diverged.Own != 1 {
		t.Errorf("shipped to a replica with more: %v", err)
	}
	if fmt.Sprint(w.bucket.objects) != before {
		t.Error("the replica changed")
	}
}

// A replica belongs to one server.
func TestClaim(t *testing.T) {
	m := newMemory()
	for _, step := range []struct {
		server string
		fresh  bool
		err    error
	}{{"srv_a", true, nil}, {"srv_a", false, nil}, {"srv_b", false, ErrForeign}, {"srv_a", false, nil}} {
		if fresh, err := Claim(t.Context(), m, step.server); fresh != step.fresh || !errors.Is(err, step.err) {
			t.Errorf("claim by %s: %v, %v", step.server, fresh, err)
		}
	}
}

// A purged database leaves nothing, whoever was shipping it; a purge that fails is done again.
func TestForget(t *testing.T) {
	w := newWorld(t)
	const other = "db_otherotherot"
	for _, id := range []string{shop, other} {
		w.exec(id, "CREATE TABLE t(a)")
	}
	w.pass(time.Second)
	w.round()
	w.bucket.failing(func(op, _ string) error {
		if op == "delete" {
			return errors.New("out of order")
		}
		return nil
	})
	if err := w.ship.Forget(t.Context(), shop); err == nil {
		t.Error("a purge that failed says nothing")
	}
	w.bucket.failing(nil)
	if err := w.ship.Forget(t.Context(), shop); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour)
	w.round()
	for key := range w.bucket.objects {
		if len(key) > len(databasePrefix(shop)) && key[:len(databasePrefix(shop))] == databasePrefix(shop) {
			t.Errorf("%s is left", key)
		}
	}
	w.same(other)
}

// What is older than is kept goes, up to a snapshot that everything after can begin with.
func TestTidyForgetsWhatIsOld(t *testing.T) {
	w := newWorld(t)
	w.opt.KeepFor = 48 * time.Hour
	w.ship = New(w.opt)
	w.exec(shop, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	for range 200 {
		w.exec(shop, "INSERT INTO t(b) VALUES(hex(randomblob(30000)))", "DELETE FROM t WHERE a < (SELECT max(a) FROM t) - 3")
		for range 3 {
			w.pass(10 * time.Minute)
			w.round()
		}
	}
	there := w.same(shop)
	oldest, err := w.past.TimeOf(shop, there[0])
	if err != nil {
		t.Fatal(err)
	}
	age := w.clock().Sub(time.UnixMilli(oldest))
	if age < 48*time.Hour || age > 48*time.Hour+snapshotMost+tidyEvery+time.Hour {
		t.Errorf("the oldest moment is of %s ago", age)
	}
	if n := w.bucket.count(databasePrefix(shop), levelSnapshot); n < 2 || n > 6 {
		t.Errorf("%d snapshots", n)
	}
	if n := w.bucket.count(databasePrefix(shop), levelSync); n > 10 {
		t.Errorf("%d files of level 0", n)
	}
}

// The catalog, page by page: every state that was shipped can be had, and a start begins with a whole copy.
func TestShipCatalog(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.root, "catalog.db")
	r := rand.New(rand.NewPCG(5, 5))
	pages := make([]byte, 40*sqlite.PageSize)
	write := func() {
		if err := os.WriteFile(path, pages, 0o600); err != nil {
			t.Fatal(err)
		}
		old := w.clock() // file systems' clocks tick slowly
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	w.opt.CatalogFiles = []string{path}
	w.opt.CopyCatalog = func(_ context.Context, to string) error { return os.WriteFile(to, pages, 0o600) }
	w.ship = New(w.opt)
	was := map[int][32]byte{}
	ships := func() {
		t.Helper()
		w.pass(time.Duration(1+r.IntN(12)) * time.Second)
		write()
		if err := w.ship.shipCatalog(t.Context()); err != nil {
			t.Fatal(err)
		}
		last := w.ship.books.last
		got, err := w.bucket.there(catalogName, last)
		if err != nil || got != sum(pages) {
			t.Fatalf("transaction %s: %v", last, err)
		}
		was[int(last)] = got
	}
	for i := range 60 {
		for range r.IntN(4) {
			copy(pages[r.IntN(len(pages)/sqlite.PageSize)*sqlite.PageSize:], fmt.Sprint(r.Int()))
		}
		switch r.IntN(10) {
		case 0:
			pages = append(pages, make([]byte, sqlite.PageSize*(1+r.IntN(5)))...)
		case 1:
			pages = pages[:len(pages)-sqlite.PageSize]
		}
		if i == 30 {
			w.ship = New(w.opt)
		}
		ships()
	}
	if n := w.bucket.count(catalogName, levelSnapshot); n != 2 {
		t.Errorf("%d snapshots, want one a start", n)
	}
	if n := w.bucket.count(catalogName, levelMoment); n < 5 {
		t.Errorf("%d files of level 1", n)
	}
	for at, want := range was {
		if got, err := w.bucket.there(catalogName, txid(uint64(at-1))); err != nil || got != want {
			t.Errorf("transaction %d: %v", at, err)
		}
	}
	puts := w.bucket.ops["put"]
	w.pass(time.Minute)
	_ = w.ship.shipCatalog(t.Context())
	_ = w.ship.shipCatalog(t.Context())
	if n := w.bucket.ops["put"] - puts; n > 1 {
		t.Errorf("%d files of a catalog that did not change", n)
	}
}

// Files of level 0 go when they are old and level 1 has them, and only then.
func TestSuperfluous(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	f := func(level, first, last, s int) file {
		return file{fmt.Sprintf("%d/%d-%d", level, first, last), level, txid(uint64(first - 1)), txid(uint64(last - 1)), 1, at(s)}
	}
	sync0 := []file{f(0, 2, 3, 10), f(0, 4, 5, 20), f(0, 6, 6, 30), f(0, 7, 9, 40), f(0, 10, 10, 50)}
	moments := []file{f(1, 2, 5, 20), f(1, 6, 8, 35)}
	hours := []file{f(2, 2, 5, 20)}
	snaps := []file{f(9, 1, 1, 5), f(9, 1, 4, 15), f(9, 1, 6, 30)}
	for _, c := range []struct {
		sync, kept int
		want       []string
	}{
		{0, 0, nil},
		{25, 0, []string{"0/2-3", "0/4-5"}},
		{100, 0, []string{"0/2-3", "0/4-5", "0/6-6"}},
		{0, 16, []string{"9/1-1", "0/2-3"}},
		{0, 31, []string{"9/1-1", "9/1-4", "2/2-5", "1/2-5", "0/2-3", "0/4-5", "0/6-6"}},
	} {
		got := superfluous(sync0, moments, hours, snaps, at(c.sync), at(c.kept))
		if !slices.Equal(got, c.want) {
			t.Errorf("since %d and %d: %v, want %v", c.sync, c.kept, got, c.want)
		}
	}
}

// One that can't be shipped doesn't hold up the others, and what comes later is looked at in time.
func TestOneFailsAlone(t *testing.T) {
	w := newWorld(t)
	const other = "db_otherotherot"
	w.exec(shop, "CREATE TABLE t(a)")
	w.exec(other, "CREATE TABLE t(a)")
	w.pass(time.Second)
	w.round()
	w.bucket.failing(func(_, key string) error {
		if len(key) >= len(databasePrefix(shop)) && key[:len(databasePrefix(shop))] == databasePrefix(shop) {
			return errors.New("out of order")
		}
		return nil
	})
	w.exec(shop, "INSERT INTO t VALUES(1)")
	for range 12 {
		w.pass(time.Minute)
		w.round()
	}
	w.exec(other, "INSERT INTO t VALUES(1)")
	if _, next := w.ship.ready(w.clock()); next.IsZero() || next.After(w.clock().Add(w.ship.opt.Interval)) {
		t.Errorf("the next look is at %s, now is %s", next, w.clock())
	}
	w.pass(time.Second)
	w.round()
	w.same(other)
	w.bucket.failing(nil)
	w.pass(2 * time.Minute)
	w.round()
	w.same(shop)
}

// However long an outage lasts and however much is written in it, what is remembered of it is an entry a database: all else is in the history.
func TestOutageHoldsNothing(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for i := range 6 {
		ids = append(ids, fmt.Sprintf("db_outageoutage%02d", i))
		w.exec(ids[i], "CREATE TABLE t(a)")
	}
	w.pass(time.Second)
	w.round()
	w.bucket.failing(func(string, string) error { return errors.New("out of order") })
	for n := range 240 { // four minutes, past the longest time between two tries
		w.exec(ids[n%len(ids)], "INSERT INTO t VALUES(randomblob(3000))", "INSERT INTO t VALUES(randomblob(3000))")
		w.pass(time.Second)
		w.round()
	}
	s := w.ship
	if most := len(ids); len(s.dirty) > most || len(s.busy) > 0 || len(s.grew) > 0 || len(s.tracks) > most || len(s.shipped) > most {
		t.Errorf("it remembers %d that are dirty, %d busy, %d that grew, %d tracks, %d shipped of %d databases", len(s.dirty), len(s.busy), len(s.grew), len(s.tracks), len(s.shipped), most)
	}
	if left, err := os.ReadDir(s.opt.Temp); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	if n, longest := s.Behind(); n != len(ids) || longest < 4*time.Minute-10*time.Second {
		t.Errorf("%d databases are behind, the first for %s", n, longest)
	}
	w.bucket.failing(nil)
	w.pass(2 * time.Minute)
	w.round()
	for _, id := range ids {
		w.same(id)
	}
	if n, _ := s.Behind(); n != 0 {
		t.Errorf("%d databases are behind at last", n)
	}
}

// A history that is damaged here is begun anew, so that the replica goes on.
func TestShipOverDamage(t *testing.T) {
	w := newWorld(t)
	w.opt.Base = w.Base
	w.ship = New(w.opt)
	w.ship.looked = true
	w.exec(shop, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	w.pass(time.Second)
	w.round()
	w.bucket.failing(func(string, string) error { return errors.New("out of order") })
	w.exec(shop, "INSERT INTO t(b) VALUES(hex(randomblob(5000)))")
	w.pass(time.Second)
	w.round()
	w.exec(shop, "INSERT INTO t(b) VALUES('after')")
	w.pass(time.Hour)
	w.round()
	paths, err := filepath.Glob(filepath.Join(w.root, "history", "*", shop, "*.log"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("%v, %v", paths, err)
	}
	b, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(paths[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	w.bucket.failing(nil)
	for range 3 {
		w.pass(time.Hour)
		w.round()
	}
	if n, _ := w.ship.Behind(); n != 0 {
		t.Fatalf("%d databases behind", n)
	}
	last := w.position(shop)
	got, err := w.bucket.there(databasePrefix(shop), txid(last))
	if err != nil || got != w.here(shop, last) {
		t.Errorf("the last position: %v", err)
	}
}
