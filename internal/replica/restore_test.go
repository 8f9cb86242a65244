package replica

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
)

// lived is a world in which a database had a random life, all of it shipped.
func lived(t *testing.T, seed uint64, rounds int) *world {
	t.Helper()
	w := newWorld(t)
	r := rand.New(rand.NewPCG(seed, 99))
	w.exec(shop, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	for range rounds {
		switch k := r.IntN(40); {
		case k < 20:
			for range 1 + r.IntN(3) {
				w.exec(shop, fmt.Sprintf("INSERT INTO t(b) VALUES(hex(randomblob(%d)))", r.IntN(4000)))
				w.pass(time.Duration(r.IntN(3000)) * time.Millisecond)
			}
		case k < 22:
			w.exec(shop, "DELETE FROM t WHERE a % 3 <> 0")
		case k == 22:
			w.exec(shop, "VACUUM")
		case k == 23:
			w.replace(r)
		case k == 24:
			w.pass(time.Duration(r.IntN(7200)) * time.Second)
		case k == 25:
			w.exec(shop, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 300) INSERT INTO t(b) SELECT hex(randomblob(2000)) FROM n")
		}
		w.pass(time.Duration(r.IntN(2500)) * time.Millisecond)
		w.round()
	}
	w.exec(shop, "INSERT INTO t(b) VALUES('last')")
	for range 4 {
		w.pass(2 * time.Minute)
		w.round()
	}
	if n, _ := w.ship.Behind(); n != 0 {
		t.Fatalf("%d databases behind", n)
	}
	return w
}

func (w *world) restorer() *Restorer { return &Restorer{Bucket: w.bucket, Temp: w.t.TempDir()} }

// restored is what a restore of a target writes.
func (w *world) restored(r *Restorer, target Target) ([]byte, Restored, error) {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "restored.db")
	got, err := r.Database(w.t.Context(), shop, target, path)
	if err != nil {
		if left, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(left) > 0 {
			w.t.Errorf("a restore that failed leaves %v", left)
		}
		return nil, got, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	if left, _ := os.ReadDir(r.Temp); len(left) > 0 {
		w.t.Errorf("%d files are left in the folder of temporary files", len(left))
	}
	return b, got, nil
}

// Every moment that the replica has is restored byte for byte, by its position and by its time, and no other one is.
func TestRestoreEveryMoment(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := lived(t, seed, 80)
			r := w.restorer()
			there := w.same(shop)
			times := map[uint64]int64{}
			last := w.position(shop)
			for at := range last + 1 {
				b, got, err := w.restored(r, AtPosition(at))
				if at == 0 && err == nil {
					if !bytes.Equal(b, sqlite.EmptyFile()) {
						t.Error("position 0 is not the empty database")
					}
					continue
				}
				if has := slices.Contains(there, at); (err == nil) != has {
					t.Fatalf("position %d: %v; the replica has it: %v", at, err, has)
				}
				if err != nil {
					var gap *MomentError
					if !errors.As(err, &gap) || !strings.Contains(err.Error(), "nearest moment") {
						t.Fatalf("position %d: %v", at, err)
					}
					i, _ := slices.BinarySearch(there, at)
					if i > 0 && (gap.Before == nil || gap.Before.Position != there[i-1]) || i < len(there) && (gap.After == nil || gap.After.Position != there[i]) {
						t.Fatalf("position %d: near %v and %v of %v", at, gap.Before, gap.After, there)
					}
					continue
				}
				if sum(b) != w.here(shop, at) {
					t.Fatalf("position %d is another database", at)
				}
				want, err := w.past.TimeOf(shop, at)
				if err != nil || got.Position != at || got.End != last || got.Time != want || got.Bytes != int64(len(b)) {
					t.Fatalf("position %d of %d at %d: %+v, %v", at, last, want, got, err)
				}
				times[at] = got.Time
			}
			for _, at := range there {
				for _, off := range []int64{-1, 0, 1} {
					ms := times[at] + off
					var want uint64
					for _, p := range there {
						if times[p] <= ms {
							want = p
						}
					}
					all, err := listAll(t.Context(), w.bucket, databasePrefix(shop))
					if err != nil {
						t.Fatal(err)
					}
					got, err := choose(t.Context(), w.bucket, all, map[string]error{}, AtTime(ms))
					switch {
					case times[there[0]] <= ms && (err != nil || got.at != txid(want)):
						t.Fatalf("time %d: %s, want position %d: %v", ms, got.at, want, err)
					case times[there[0]] > ms && there[0] > 1 && err == nil:
						t.Fatalf("%d, before the replica begins: %s", ms, got.at)
					}
				}
			}
			if b, got, err := w.restored(r, Target{}); err != nil || got.Position != last || sum(b) != w.here(shop, last) {
				t.Errorf("the latest: %+v, %v", got, err)
			}
		})
	}
}

// Damage is refused, or another file has what is needed: a wrong database never comes of it.
func TestRestoreOverDamage(t *testing.T) {
	w := lived(t, 11, 70)
	r := w.restorer()
	rnd := rand.New(rand.NewPCG(7, 7))
	there := w.same(shop)
	sums, times := map[uint64][32]byte{}, map[uint64]int64{}
	for _, at := range there {
		sums[at] = w.here(shop, at)
		times[at], _ = w.past.TimeOf(shop, at)
	}
	var keys []string
	for key := range maps.Clone(w.bucket.objects) {
		if strings.HasPrefix(key, databasePrefix(shop)) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	refused, right := 0, 0
	for range 300 {
		damagedKeys := map[string]object{}
		for range 1 + rnd.IntN(3) {
			key := keys[rnd.IntN(len(keys))]
			if _, already := damagedKeys[key]; already {
				continue
			}
			o := w.bucket.objects[key]
			damagedKeys[key] = o
			b := bytes.Clone(o.body)
			switch k := rnd.IntN(10); {
			case k == 0:
				delete(w.bucket.objects, key)
				continue
			case k == 1:
				b = b[:rnd.IntN(len(b))]
			case k == 2:
				b = append(b, byte(rnd.Int()))
			case k < 6: // the header
				b[rnd.IntN(100)] ^= 1 << rnd.IntN(8)
			default:
				b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
			}
			w.bucket.objects[key] = object{b, o.modified}
		}
		at := there[rnd.IntN(len(there))]
		target, want := AtPosition(at), at
		switch rnd.IntN(3) {
		case 0:
			target, want = Target{}, there[len(there)-1]
		case 1:
			target = AtTime(times[at])
			for _, p := range there {
				if times[p] == times[at] {
					want = p
				}
			}
		}
		b, got, err := w.restored(r, target)
		var gap *MomentError
		switch {
		case err == nil && got.Position == want && sum(b) == sums[want]:
			right++
		case err == nil:
			// The newest files may be gone altogether: then the latest is what is there.
			gone := false
			for key := range damagedKeys {
				if _, ok := w.bucket.objects[key]; !ok {
					gone = true
				}
			}
			if !gone || sum(b) != sums[got.Position] {
				t.Fatalf("%s with damage in %v: position %d, want %d", target, slices.Collect(maps.Keys(damagedKeys)), got.Position, want)
			}
		case errors.As(err, &gap):
			refused++
		default:
			t.Fatalf("%s: %v", target, err)
		}
		for key, o := range damagedKeys {
			w.bucket.objects[key] = o
		}
	}
	t.Logf("%d right, %d refused", right, refused)
	if right < 60 || refused < 20 {
		t.Error("that shows too little")
	}
}

// One file after the other is damaged in each way: what is restored over it is right, or nothing is.
func TestRestoreOverEveryDamage(t *testing.T) {
	w := lived(t, 21, 25)
	r := w.restorer()
	there := w.same(shop)
	sums := map[uint64][32]byte{}
	for _, at := range there {
		sums[at] = w.here(shop, at)
	}
	refused, right := 0, 0
	for key, o := range maps.Clone(w.bucket.objects) {
		if !strings.HasPrefix(key, databasePrefix(shop)+"/") {
			continue
		}
		_, last, err := ltx.ParseFilename(filepath.Base(key))
		if err != nil {
			t.Fatal(err)
		}
		flipped := bytes.Clone(o.body)
		flipped[len(flipped)*2/3] ^= 16
		for what, body := range map[string][]byte{"flipped": flipped, "truncated": o.body[:len(o.body)-20], "empty": {}, "gone": nil} {
			if w.bucket.objects[key] = (object{body, o.modified}); body == nil {
				delete(w.bucket.objects, key)
			}
			// Its own end, and the newest moment: only that may be an earlier one, where nothing tells that there was a later.
			for _, target := range []Target{AtPosition(uint64(last) - 1), AtPosition(there[len(there)-1]), {}} {
				b, got, err := w.restored(r, target)
				var gap *MomentError
				switch {
				case errors.As(err, &gap):
					refused++
				case err != nil:
					t.Fatalf("%s %s: %v", key, what, err)
				case sum(b) != sums[got.Position], !target.Latest() && got.Position != target.n, target.Latest() && what != "gone" && got.Position != there[len(there)-1]:
					t.Fatalf("%s %s: %s is position %d", key, what, target, got.Position)
				default:
					right++
				}
			}
		}
		w.bucket.objects[key] = o
	}
	t.Logf("%d right, %d refused", right, refused)
	if right < 30 || refused < 30 {
		t.Error("that shows too little")
	}
}

// A replica that can't be reached is no damage, and what goes while it is restored is looked for again.
func TestRestoreBesideTrouble(t *testing.T) {
	w := lived(t, 3, 40)
	r := w.restorer()
	outage := &bucket.Error{Op: bucket.OpGet, Key: "x", Where: "y", Err: errors.New("out of order")}
	w.bucket.failing(func(op, _ string) error {
		if op == "get" {
			return outage
		}
		return nil
	})
	if _, _, err := w.restored(r, Target{}); !errors.Is(err, outage) {
		t.Errorf("an outage: %v", err)
	}
	once := true
	w.bucket.failing(func(op, key string) error {
		if op == "get" && once && strings.Contains(key, w.bucket.LevelDir(levelMoment)) {
			once = false
			return os.ErrNotExist
		}
		return nil
	})
	if _, got, err := w.restored(r, Target{}); err != nil || got.Position != w.position(shop) || once {
		t.Errorf("a file that went: %+v, %v", got, err)
	}
	w.bucket.failing(nil)
	var gap *MomentError
	if _, err := r.Database(t.Context(), "db_nobodynobody", Target{}, filepath.Join(t.TempDir(), "x")); !errors.Is(err, ErrNotKept) {
		t.Errorf("a database that isn't there: %v", err)
	}
	_, _, err := w.restored(r, AtPosition(1<<40))
	if !errors.As(err, &gap) || gap.Before == nil || !strings.Contains(err.Error(), "bookmark "+history.Bookmark(shop, w.position(shop))) {
		t.Errorf("a position that hasn't come: %v", err)
	}
}
