package feed_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/persqld/persqld/internal/feed"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// open is a gate that lets everything through.
type open struct{}

func (open) Permit(sqlite.Access) error { return nil }
func (open) Judge(*sqlite.Stmt) error   { return nil }

const database = "db_abcdefgh"

// rig is a store with one database and a hub.
type rig struct {
	*store.Store
	hub *feed.Hub
	t   testing.TB
}

func newRig(t testing.TB, opt feed.Options) *rig {
	t.Helper()
	hub := feed.New(opt)
	s, err := store.New(store.Options{Dir: t.TempDir(), Feed: hub, FeedChanges: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	hub.Place(s)
	if err := s.Create(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	r := &rig{s, hub, t}
	r.must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	return r
}

func (r *rig) must(sql string) {
	r.t.Helper()
	err := r.Do(context.Background(), database, &store.Request{Gate: open{}, Job: store.JobFunc(func(tx *store.Tx) error {
		st, _, err := tx.Prepare([]byte(sql))
		if err != nil {
			return err
		}
		defer st.Done()
		_, err = tx.Run(st, nil, nil)
		return err
	})})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) join(since int64, rows bool) *feed.Reader {
	r.t.Helper()
	reader, err := r.hub.Join(r.t.Context(), database, since, rows)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(reader.Leave)
	return reader
}

// hear takes messages until there are n, or one is a resync.
func (r *rig) hear(reader *feed.Reader, n int) (list []string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	for len(list) < n {
		got, resync, news, err := reader.Next(ctx)
		if err != nil {
			r.t.Fatalf("%v behind %v", err, list)
		}
		if resync {
			return append(list, "resync")
		}
		for _, m := range got {
			for i := range m.List {
				list = append(list, string(m.WithRows(i)))
			}
		}
		if len(got) == 0 {
			select {
			case <-news:
			case <-ctx.Done():
				r.t.Fatalf("heard only %v", list)
			}
		}
	}
	return list
}

func TestReaderHearsInOrder(t *testing.T) {
	r := newRig(t, feed.Options{})
	live := r.join(feed.Now, true)
	first := live.Seen()
	r.must("INSERT INTO t VALUES(1,'x'),(2,x'00ff'),(3,1.0)")
	r.must("UPDATE t SET b=NULL WHERE a=1")
	want := []string{`"kind":"insert","seq":2`, `"new":{"a":2,"b":{"$blob":"AP8="}}`, `"new":{"a":3,"b":1.0}`, `"rowid":1,"new":{"a":1,"b":null},"old":{"a":1,"b":"x"}}`}
	got := r.hear(live, 4)
	for i, w := range want {
		if !strings.Contains(got[i], w) {
			t.Errorf("message %d is %s, want %s in it", i, got[i], w)
		}
	}
	// In the midst of a commit, from the ring and, when all have left, from the journal.
	for range 2 {
		late := r.join(first+2, false)
		if got := r.hear(late, 2); !strings.Contains(got[0], `"seq":4`) || !strings.Contains(got[1], `"seq":5`) {
			t.Errorf("behind %d: %v", first+2, got)
		}
		late.Leave()
		live.Leave()
	}
	if got := r.hear(r.join(first-1, false), 1); got[0] != "resync" {
		t.Errorf("from before the first listener: %v", got)
	}
}

func TestReaderCatchesUpWhileOthersWrite(t *testing.T) {
	r := newRig(t, feed.Options{RingBytes: 4096}) // far less than is written
	begin := r.join(feed.Now, false)
	since := begin.Seen()
	begin.Leave()
	const n = 3000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range n {
			r.must("INSERT INTO t(b) VALUES(1)")
		}
	}()
	seq := since
	for seq < since+n {
		reader := r.join(seq, false)
		for range 20 {
			list, resync, news, err := reader.Next(t.Context())
			if errors.Is(err, feed.ErrBehind) {
				break
			}
			if err != nil || resync {
				t.Fatalf("behind %d: %v %v", seq, resync, err)
			}
			for _, m := range list {
				for _, one := range m.List {
					if one.Seq != seq+1 {
						t.Fatalf("seq %d behind %d", one.Seq, seq)
					}
					seq = one.Seq
				}
			}
			if len(list) == 0 {
				select {
				case <-news:
				case <-time.After(10 * time.Millisecond):
				}
			}
		}
		reader.Leave()
	}
	<-done
}

func TestSlowReaderFallsBehind(t *testing.T) {
	r := newRig(t, feed.Options{RingBytes: 4096})
	slow, fast := r.join(feed.Now, false), r.join(feed.Now, false)
	for range 200 {
		r.must("INSERT INTO t(b) VALUES(1)")
		r.hear(fast, 1)
	}
	if _, _, _, err := slow.Next(t.Context()); !errors.Is(err, feed.ErrBehind) {
		t.Errorf("got %v", err)
	}
	if r.hub.CutOff() != 1 {
		t.Errorf("%d were cut off", r.hub.CutOff())
	}
}

// The first change is told at once, those that follow closely together; but much is told before the ring is too small for it.
func TestManyAreToldTogether(t *testing.T) {
	r := newRig(t, feed.Options{WakeEach: time.Hour, WakeMost: time.Hour, RingBytes: 64 << 10})
	live := r.join(feed.Now, true)
	r.must("INSERT INTO t VALUES(1,'x')")
	r.hear(live, 1)
	for i := 2; i < 8; i += 2 {
		r.must(fmt.Sprintf("INSERT INTO t VALUES(%d,'x')", i))
		if got, _, _, err := live.Next(t.Context()); err != nil || len(got) > 0 {
			t.Fatalf("told at once: %v, %v", got, err)
		}
		r.must(fmt.Sprintf("INSERT INTO t VALUES(%d,zeroblob(20000))", i+1))
		if list := r.hear(live, 2); len(list) != 2 {
			t.Fatalf("told %d", len(list))
		}
	}
}

// Who has heard all isn't behind for what comes at once, though the ring is too small for it; one that doesn't take it before the next comes is.
func TestWhatComesAtOnceIsTold(t *testing.T) {
	r := newRig(t, feed.Options{RingBytes: 4 << 10})
	r.hub.Still(database)
	prompt, slow := r.join(feed.Now, false), r.join(feed.Now, false)
	for round := range 3 {
		const commits = 200
		for i := range commits {
			r.must(fmt.Sprintf("INSERT INTO t VALUES(%d,'x')", 1000*round+i))
		}
		r.hub.Round(database)
		for heard := 0; heard < commits; {
			list, resync, _, err := prompt.Next(t.Context())
			if err != nil || resync || len(list) == 0 {
				t.Fatalf("round %d: %d of %d commits, resync %v, %v", round, heard, commits, resync, err)
			}
			heard += len(list)
		}
	}
	if _, _, _, err := slow.Next(t.Context()); !errors.Is(err, feed.ErrBehind) {
		t.Errorf("one that takes nothing: %v", err)
	}
}

// Many are woken in parts: each of them is.
func TestEachOfManyIsWoken(t *testing.T) {
	r := newRig(t, feed.Options{})
	r.hub.Still(database)
	var waiting []<-chan struct{}
	for range 50 {
		list, _, news, err := r.join(feed.Now, false).Next(t.Context())
		if err != nil || len(list) > 0 {
			t.Fatal(list, err)
		}
		waiting = append(waiting, news)
	}
	r.must("INSERT INTO t VALUES(1,'x')")
	r.hub.Round(database)
	for i, news := range waiting {
		select {
		case <-news:
		default:
			t.Errorf("the listener %d sleeps", i)
		}
	}
}

func TestBreakIsResync(t *testing.T) {
	r := newRig(t, feed.Options{})
	reader := r.join(feed.Now, false)
	r.must("INSERT INTO t(b) VALUES(1)")
	if err := r.Rebuild(t.Context(), database, store.FromCopy, nil, func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	r.must("INSERT INTO t(b) VALUES(2)")
	got := r.hear(reader, 9)
	if got[len(got)-1] != "resync" {
		t.Fatalf("heard %v", got)
	}
	r.must("INSERT INTO t VALUES(77,3)")
	for {
		if got = r.hear(reader, 1); strings.Contains(got[0], `"rowid":77`) {
			break
		}
	}
	if r.hub.Resynced() != 1 {
		t.Errorf("%d resyncs", r.hub.Resynced())
	}
}

func TestListenersAreBounded(t *testing.T) {
	r := newRig(t, feed.Options{Max: 3, MaxHere: 2})
	a, _ := r.join(feed.Now, false), r.join(feed.Now, false)
	if _, err := r.hub.Join(t.Context(), database, feed.Now, false); !errors.Is(err, feed.ErrManyHere) {
		t.Errorf("got %v", err)
	}
	a.Leave()
	a.Leave()
	if n := r.hub.Listeners(); n != 1 {
		t.Errorf("%d listeners", n)
	}
	if _, err := r.hub.Join(t.Context(), "db_nonesuch", feed.Now, false); err == nil {
		t.Error("listens to a database that isn't there")
	}
	if n := r.hub.Listeners(); n != 1 {
		t.Errorf("%d listeners", n)
	}
}

// prolonged counts how often listening is prolonged.
type prolonged struct {
	store.Runner
	times atomic.Int64
}

func (p *prolonged) Owner(context.Context, string) (store.Runner, error) { return p, nil }
func (p *prolonged) Listen(context.Context, string, bool) (int64, error) {
	p.times.Add(1)
	return 7, nil
}

func TestListeningIsProlonged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owner := &prolonged{}
		hub := feed.New(feed.Options{For: 24 * time.Hour})
		hub.Place(owner)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); hub.Run(ctx) }()
		reader, err := hub.Join(ctx, database, feed.Now, false)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24*time.Hour + time.Minute)
		synctest.Wait()
		if n := owner.times.Load(); n < 24 {
			t.Errorf("prolonged %d times in a day", n)
		}
		reader.Leave()
		n := owner.times.Load()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if owner.times.Load() != n {
			t.Error("nobody listens, and listening is prolonged")
		}
		cancel()
		<-done
	})
}

func ExampleHub_Join() {
	hub := feed.New(feed.Options{})
	hub.Place(&prolonged{})
	reader, err := hub.Join(context.Background(), database, feed.Now, false)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer reader.Leave()
	fmt.Println("behind change", reader.Seen())
	// Output: behind change 7
}
