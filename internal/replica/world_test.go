package replica

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// memory is a bucket that can be told to fail.
type memory struct {
	mu      sync.Mutex
	objects map[string]object
	fail    func(op, key string) error
	ops     map[string]int
}

type object struct {
	body     []byte
	modified time.Time
}

func newMemory() *memory { return &memory{objects: map[string]object{}, ops: map[string]int{}} }

func (m *memory) asked(op, key string) error {
	m.ops[op]++
	if m.fail != nil {
		return m.fail(op, key)
	}
	return nil
}

func (m *memory) Put(ctx context.Context, key string, body io.ReadSeeker, size int64, modified time.Time) error {
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(m.asked("put", key), ctx.Err()); err != nil {
		return err
	}
	if int64(len(b)) != size {
		return fmt.Errorf("%d bytes, not %d", len(b), size)
	}
	m.objects[key] = object{b, modified}
	return nil
}

func (m *memory) Get(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.asked("get", key); err != nil {
		return nil, err
	}
	o, ok := m.objects[key]
	if !ok {
		return nil, &fs.PathError{Op: "get", Path: key, Err: fs.ErrNotExist}
	}
	b := o.body[min(offset, int64(len(o.body))):]
	if length >= 0 {
		b = b[:min(length, int64(len(b)))]
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (m *memory) List(_ context.Context, prefix string, fn func(bucket.Object) error) error {
	m.mu.Lock()
	if err := m.asked("list", prefix); err != nil {
		m.mu.Unlock()
		return err
	}
	var list []bucket.Object
	for key, o := range m.objects {
		if strings.HasPrefix(key, prefix) {
			list = append(list, bucket.Object{Key: key, Size: int64(len(o.body)), Modified: o.modified})
		}
	}
	m.mu.Unlock()
	sort.Slice(list, func(i, j int) bool { return list[i].Key < list[j].Key })
	for _, o := range list {
		if err := fn(o); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Groups(_ context.Context, prefix string) (list []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.objects {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			if name, _, ok := strings.Cut(rest, "/"); ok && !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	slices.Sort(list)
	return list, nil
}

func (m *memory) Delete(_ context.Context, keys ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.asked("delete", ""); err != nil {
		return err
	}
	for _, key := range keys {
		delete(m.objects, key)
	}
	return nil
}

func (m *memory) LevelDir(level int) string { return fmt.Sprintf("%04x", level) }

// failing has every operation fail until it is called with nil.
func (m *memory) failing(f func(op, key string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

// count is how many files of a level there are.
func (m *memory) count(prefix string, level int) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.objects {
		if strings.HasPrefix(key, prefix+"/"+m.LevelDir(level)+"/") {
			n++
		}
	}
	return n
}

// world is a server's store with a history, and a replica of it. Its clock moves when it is told to.
type world struct {
	*store.Store
	t      *testing.T
	root   string
	past   *history.History
	bucket *memory
	ship   *Shipper
	opt    Options

	mu  sync.Mutex
	now time.Time
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// Note and Times make the world the store's clock: it tells the shipper, and remembers nothing.
func (w *world) Note(id string, _ uint64, ms int64) error {
	w.ship.Note(id, ms)
	return nil
}

func (w *world) Times(string, uint64) []int64 { return nil }

var initialize = sync.OnceValue(func() error { return sqlite.Initialize(sqlite.Setup{}) })

func newWorld(t *testing.T) *world {
	t.Helper()
	if err := initialize(); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, root: t.TempDir(), bucket: newMemory(), now: time.UnixMilli(1_800_000_000_000)}
	for _, dir := range []string{"db", "history", "tmp"} {
		if err := os.Mkdir(filepath.Join(w.root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	t.Cleanup(func() { w.Close(context.Background()) })
	return w
}

func (w *world) start() {
	w.t.Helper()
	var err error
	if w.past, err = history.New(history.Options{Root: filepath.Join(w.root, "history"), Grew: func(id string, position uint64) { w.ship.Grew(id, position) }}); err != nil {
		w.t.Fatal(err)
	}
	w.opt = Options{Bucket: w.bucket, Past: w.past, Server: "srv_a", Temp: filepath.Join(w.root, "tmp"), State: filepath.Join(w.root, "replica-state"), Now: w.clock,
		Keep:      func(ctx context.Context, id string) error { return w.Keep(ctx, id) },
		Databases: w.databases,
		Size:      sizeIn(filepath.Join(w.root, "db")),
	}
	w.ship = New(w.opt)
	w.ship.looked = true
	if w.Store, err = store.New(store.Options{Dir: filepath.Join(w.root, "db"), Temp: filepath.Join(w.root, "tmp"), Past: w.past, Clock: w, Now: w.clock,
		Made: func(id string) { w.ship.Note(id, w.clock().UnixMilli()) }}); err != nil {
		w.t.Fatal(err)
	}
}

// sizeIn tells how long a database's file is in a folder of them.
func sizeIn(dir string) func(id string) int64 {
	return func(id string) int64 {
		fi, err := os.Stat(filepath.Join(dir, id[len(id)-2:], id+".db"))
		if err != nil {
			return 0
		}
		return fi.Size()
	}
}

func (w *world) databases() (ids []string) {
	paths, _ := filepath.Glob(filepath.Join(w.root, "db", "*", "*.db"))
	for _, p := range paths {
		ids = append(ids, strings.TrimSuffix(filepath.Base(p), ".db"))
	}
	return ids
}

type anything struct{}

func (anything) Permit(sqlite.Access) error { return nil }
func (anything) Judge(*sqlite.Stmt) error   { return nil }

// exec runs statements in one transaction of a database.
func (w *world) exec(id string, sqls ...string) {
	w.t.Helper()
	if err := w.Create(w.t.Context(), id); err != nil && !errors.Is(err, fs.ErrExist) {
		w.t.Fatal(err)
	}
	err := w.Do(w.t.Context(), id, &store.Request{Gate: anything{}, Job: store.JobFunc(func(tx *store.Tx) error {
		for _, sql := range sqls {
			st, _, err := tx.Prepare([]byte(sql))
			if err != nil {
				return err
			}
			_, err = tx.Run(st, nil, func(*sqlite.Stmt) error { return nil })
			st.Done()
			if err != nil {
				return err
			}
		}
		return nil
	})})
	if err != nil {
		w.t.Fatal(err)
	}
}

// round ships what is ready now, as Run does.
func (w *world) round() {
	w.t.Helper()
	ids, _ := w.ship.ready(w.clock())
	for _, id := range ids {
		w.ship.serve(w.t.Context(), id)
	}
}

// position is a database's last one.
func (w *world) position(id string) uint64 {
	w.t.Helper()
	at, _, err := w.Position(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return at
}

// here is a checksum of what the history has at a position.
func (w *world) here(id string, at uint64) [32]byte {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "here.db")
	if err := w.past.Restore(w.t.Context(), id, at, path); err != nil {
		w.t.Fatalf("position %d here: %v", at, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// there is what the replica has at a transaction, put together the plain way: whatever file fits, the longest one first.
func (m *memory) there(prefix string, at ltx.TXID) ([32]byte, error) {
	type ranged struct {
		first, last ltx.TXID
		key         string
	}
	var all []ranged
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.objects {
		if strings.HasPrefix(key, prefix+"/") {
			first, last, err := ltx.ParseFilename(filepath.Base(key))
			if err != nil {
				return [32]byte{}, err
			}
			if last <= at {
				all = append(all, ranged{first, last, key})
			}
		}
	}
	var pages [][]byte
	for done := ltx.TXID(0); done < at; {
		best := ranged{}
		for _, f := range all {
			if f.first <= done+1 && f.last > max(done, best.last) {
				best = f
			}
		}
		if best.last == 0 {
			return [32]byte{}, fmt.Errorf("no file goes on from %s", done)
		}
		dec := ltx.NewDecoder(bytes.NewReader(m.objects[best.key].body))
		if err := dec.DecodeHeader(); err != nil {
			return [32]byte{}, err
		}
		h := dec.Header()
		if h.MinTXID != best.first || h.MaxTXID != best.last || h.PageSize != sqlite.PageSize {
			return [32]byte{}, fmt.Errorf("%s has the header %+v", best.key, h)
		}
		for {
			var ph ltx.PageHeader
			image := make([]byte, sqlite.PageSize)
			if err := dec.DecodePage(&ph, image); err == io.EOF {
				break
			} else if err != nil {
				return [32]byte{}, fmt.Errorf("%s: %w", best.key, err)
			}
			for len(pages) < int(ph.Pgno) {
				pages = append(pages, nil)
			}
			pages[ph.Pgno-1] = image
		}
		if err := dec.Close(); err != nil {
			return [32]byte{}, fmt.Errorf("%s: %w", best.key, err)
		}
		pages = pages[:h.Commit]
		done = best.last
	}
	return sha256.Sum256(bytes.Join(pages, nil)), nil
}

// begins is the first position at which a file ends: that of a database made of a file is a time.
func (m *memory) begins(prefix string) uint64 {
	first := uint64(math.MaxUint64)
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.objects {
		if _, last, err := ltx.ParseFilename(filepath.Base(key)); err == nil && strings.HasPrefix(key, prefix+"/") {
			first = min(first, uint64(last)-1)
		}
	}
	return first
}

// same checks that the replica has a database as the history does, at every position that it can be had at, and at the last one. It returns those.
func (w *world) same(id string) (positions []uint64) {
	w.t.Helper()
	last := w.position(id)
	for at := min(w.bucket.begins(databasePrefix(id)), last); at <= last; at++ {
		got, err := w.bucket.there(databasePrefix(id), txid(at))
		if err != nil && at == last {
			w.t.Fatalf("the last position, %d: %v", at, err)
		}
		if err != nil {
			continue
		}
		positions = append(positions, at)
		if got != w.here(id, at) {
			w.t.Fatalf("position %d is another database", at)
		}
	}
	return positions
}

func sum(b []byte) [32]byte { return sha256.Sum256(b) }
