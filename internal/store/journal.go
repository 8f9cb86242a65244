package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// A database that somebody listens to keeps what each commit changed, in the commit's own transaction. See DESIGN.md, "The journal".

// Feed takes what databases that are listened to commit. Its methods are called in the lane of the database: they must not block.
type Feed interface {
	// Committed is told of a batch that is durable, each once and in order.
	Committed(database string, b *Batch)
	// Broken says that another file took the database's place: what it changed isn't known.
	Broken(database string)
}

// feedTable is the journal. A row is a commit: all of its changes, under the number of the last. Row 0 says until when somebody listens, in Unix ms, and until when
// somebody wants the values of rows. One without a body is a gap: what changed before it wasn't noted.
var feedTable = SystemTable{
	Name:    SystemPrefix + "feed_v1",
	Columns: "seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, body BLOB",
	// The numbers are this database's, and go on whatever is restored.
	Branch: Leave, Restore: Keep, Export: Leave, Import: Keep,
}

const (
	insertFeed = "INSERT INTO " + SystemPrefix + "feed_v1 VALUES(?,?,?)"
	// oldestFeed is what a sweep looks at, until it meets a row that stays. The newest does: it says where the numbers go on.
	oldestFeed = "SELECT seq, at FROM " + SystemPrefix + "feed_v1 WHERE seq>0 AND seq<? ORDER BY seq LIMIT 1024"
	sweepFeed  = "DELETE FROM " + SystemPrefix + "feed_v1 WHERE seq>0 AND seq<=?"
	// journalSweep is after how many commits those rows go that are too many or too old, at most 1,024 of them.
	journalSweep = 64
	// journalBytes is how many bytes of bodies a journal holds; the sweep halves it then.
	journalBytes = 32 << 20
)

// openJournal has an opened connection note changes, if its file says that somebody listens. Another one pays nothing.
func (a *actor) openJournal(s *Store, conn *sqlite.Conn) error {
	a.feed = nil
	if s.opt.Feed == nil || !a.tables.known[feedTable.Name] {
		return nil
	}
	j := newJournal(s, conn)
	err := conn.EachRow("SELECT at, body, (SELECT max(seq) FROM "+feedTable.Name+") FROM "+feedTable.Name+" WHERE seq=0", func(st *sqlite.Stmt) error {
		j.until, j.rowsUntil, j.head = st.Column(0).Int, rowsUntilOf(st.Column(1).Bytes), st.Column(2).Int
		return nil
	})
	now := s.opt.Now().UnixMilli()
	if err != nil || j.until <= now {
		return err
	}
	j.rows = j.rowsUntil > now
	a.feed = j
	a.setHooks(conn)
	return nil
}

func rowsUntilOf(body []byte) int64 {
	if len(body) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(body))
}

// setHooks has the connection tell of changes to those who need them.
func (a *actor) setHooks(conn *sqlite.Conn) {
	var hooks []sqlite.ChangeHook
	if a.witnessed {
		hooks = append(hooks, func(ch *sqlite.Change) {
			if a.witness != nil {
				a.witness.Changing(ch)
			}
		})
	}
	if a.rec != nil && a.rec.rows {
		hooks = append(hooks, a.rec.note)
	}
	if a.feed != nil {
		hooks = append(hooks, a.feed.note)
	}
	conn.SetChangeHook(hooks)
}

// unhear ends the journal of a database that nobody has listened to for long. No transaction is open.
func (w *worker) unhear(a *actor) {
	j := a.feed
	if j == nil {
		return
	}
	switch now := w.store.opt.Now().UnixMilli(); {
	case j.until <= now:
		a.feed = nil
		a.setHooks(a.conn)
	case j.rows && j.rowsUntil <= now:
		j.rows = false
	}
}

// listening is for how long somebody listens.
type listening int

const (
	listenAWhile  listening = iota // for Options.FeedFor
	listenForGood                  // until listenNoMore
	listenNoMore                   // what was for good goes on for Options.FeedFor
)

// forGood is the time in row 0, in Unix ms, of a database that is listened to for good: far behind all others.
const forGood = 1 << 60

// Listen has a database keep what is committed. See Runner.
func (s *Store) Listen(ctx context.Context, database string, rows bool) (head int64, err error) {
	return s.listen(ctx, database, rows, listenAWhile)
}

// ListenForGood has a database keep what is committed until it is told that nobody wants it. See Runner.
func (s *Store) ListenForGood(ctx context.Context, database string, on bool) (head int64, err error) {
	if on {
		return s.listen(ctx, database, false, listenForGood)
	}
	return s.listen(ctx, database, false, listenNoMore)
}

func (s *Store) listen(ctx context.Context, database string, rows bool, how listening) (head int64, err error) {
	err = s.act(ctx, database, func(w *worker, a *actor) (err error) {
		head, err = w.listen(a, rows, how)
		return err
	})
	return head, err
}

func (w *worker) listen(a *actor, rows bool, how listening) (head int64, err error) {
	s := w.store
	if s.opt.Feed == nil {
		return 0, errors.New("the store has nobody to tell of changes")
	}
	if err := w.mayOpen(a); err != nil {
		return 0, err
	}
	w.unhear(a)
	now := s.opt.Now()
	w.stats.start = now
	until := now.Add(s.opt.FeedFor).UnixMilli()
	j := a.feed
	// It is written again only when a twenty-fourth of its time is over, so that a thousand listeners cost no thousand commits.
	fresh := now.Add(s.opt.FeedFor * 23 / 24).UnixMilli()
	switch {
	case j == nil:
		if how == listenNoMore {
			return 0, nil
		}
	case how == listenForGood || how == listenNoMore:
		if (j.until == forGood) == (how == listenForGood) {
			return j.head, nil
		}
	case j.until > fresh && (!rows || j.rows && j.rowsUntil > fresh):
		return j.head, nil
	}
	if how == listenForGood || how == listenAWhile && j != nil && j.until == forGood {
		until = forGood
	}
	if a.frozen.Load() {
		return 0, ErrRebuilding // what is written now would be lost with the old file
	}
	next := newJournal(s, a.conn)
	if j != nil {
		next.head, next.rowsUntil = j.head, j.rowsUntil
	}
	next.until = until
	if rows {
		next.rowsUntil = now.Add(s.opt.FeedFor).UnixMilli()
	}
	next.rows = next.rowsUntil > now.UnixMilli()
	was := a.conn.Commits()
	err = w.guard(a, func() error {
		if err := w.begin(a); err != nil {
			return err
		}
		if err := w.writeListening(a, next, j == nil, now); err != nil {
			return err
		}
		return w.own(a, "COMMIT")
	})
	if err != nil {
		w.rollback(a)
		w.group.reset()
		var e *sqlite.Error
		if a.conn != nil && errors.As(err, &e) && e.Code.Primary() == sqlite.CodeIOErr {
			w.reopen(a)
		}
		return 0, translate(err, false)
	}
	w.group.reset()
	if a.conn.Commits() != was {
		s.opt.Observer.Commit()
		s.noteCommits(a)
	}
	if j != nil { // the hook is there
		j.until, j.rowsUntil, j.rows = next.until, next.rowsUntil, next.rows
		return j.head, nil
	}
	a.feed = next
	a.setHooks(a.conn)
	return next.head, nil
}

// writeListening writes until when somebody listens, and the gap where nobody did until now.
func (w *worker) writeListening(a *actor, j *journal, gap bool, now time.Time) error {
	tx := &Tx{w: w, a: a, c: &w.clerk, lone: true, bare: true}
	defer w.beyondLimit(a, meterSlack)()
	if err := tx.need(feedTable); err != nil {
		return err
	}
	if gap {
		err := tx.own("SELECT coalesce(max(seq),0) FROM "+feedTable.Name, nil, func(st *sqlite.Stmt) error {
			j.head = st.Column(0).Int
			return nil
		})
		if err != nil {
			return err
		}
		j.head++
		// Nobody can go on from what was before.
		if err := tx.own("DELETE FROM "+feedTable.Name, nil, nil); err != nil {
			return err
		}
		if err := tx.own(insertFeed, []sqlite.Param{intParam(j.head), intParam(now.UnixMilli()), {}}, nil); err != nil {
			return err
		}
	}
	body := binary.BigEndian.AppendUint64(nil, uint64(j.rowsUntil))
	return tx.own("INSERT OR REPLACE INTO "+feedTable.Name+" VALUES(0,?,?)", []sqlite.Param{intParam(j.until), blobParam(body)}, nil)
}

// beyondLimit lets a database that is nearly full have some pages more: it must take a DELETE, whatever is kept of it.
func (w *worker) beyondLimit(a *actor, pages int64) (back func()) {
	limit := w.pageLimit()
	if a.conn.Pages()+pages < limit {
		return func() {}
	}
	a.conn.SetMaxPages(max(limit, a.conn.Pages()) + pages)
	return func() {
		if a.conn != nil {
			a.conn.SetMaxPages(limit)
		}
	}
}

// body is the entries of the transaction as the journal keeps them.
func (j *journal) body() []byte {
	b := binary.AppendUvarint([]byte{bodyForm}, uint64(j.count))
	b = binary.AppendUvarint(b, uint64(len(j.list)))
	for _, t := range j.list {
		b = appendText(b, t.name)
		b = appendTexts(b, t.keyNames)
		b = appendTexts(b, t.names)
	}
	return append(b, j.buf...)
}

// maxBody keeps a body within the longest value that SQLite takes.
const maxBody = 15 << 20

// writeJournal writes what the group changed into its transaction. It is tentative until that is committed.
func (w *worker) writeJournal(a *actor) (b *Batch, err error) {
	j := a.feed
	if j == nil || j.count == 0 {
		return nil, nil
	}
	body := j.body()
	if len(body) > maxBody {
		j.tellTables(place{})
		body = j.body()
	}
	b = &Batch{First: j.head + 1, Last: j.head + j.count, At: w.store.opt.Now().UnixMilli(), body: body}
	defer w.beyondLimit(a, meterSlack+int64(len(body)/sqlite.PageSize))()
	tx := &Tx{w: w, a: a, c: &w.clerk, lone: true, bare: true}
	if err := tx.own(insertFeed, []sqlite.Param{intParam(b.Last), intParam(b.At), blobParam(body)}, nil); err != nil {
		return nil, fmt.Errorf("keep what changed: %w", err)
	}
	j.bytes += int64(len(body))
	if j.unswept++; j.unswept < journalSweep && j.bytes < journalBytes {
		return b, nil
	}
	j.unswept = 0
	if err := w.sweepJournal(tx, j, b); err != nil {
		return nil, fmt.Errorf("keep what changed: %w", err)
	}
	return b, nil
}

var errStays = errors.New("this row stays, and those behind it")

// sweepJournal deletes what is too old, or too much.
func (w *worker) sweepJournal(tx *Tx, j *journal, b *Batch) error {
	opt := &w.store.opt
	over := int64(0)
	err := tx.own(oldestFeed, []sqlite.Param{intParam(b.Last)}, func(st *sqlite.Stmt) error {
		seq, at := st.Column(0).Int, st.Column(1).Int
		if seq > b.Last-int64(opt.FeedKeep) && at >= b.At-opt.FeedFor.Milliseconds() {
			return errStays
		}
		over = seq
		return nil
	})
	if err == errStays {
		err = nil
	}
	if err == nil && over > 0 {
		err = tx.own(sweepFeed, []sqlite.Param{intParam(over)}, nil)
	}
	if err != nil {
		return err
	}
	if !j.summed || j.bytes >= journalBytes {
		j.summed = true
		var sizes []int64
		err := tx.own("SELECT length(body) FROM "+feedTable.Name+" WHERE seq>0 ORDER BY seq DESC", nil, func(st *sqlite.Stmt) error {
			sizes = append(sizes, st.Column(0).Int)
			return nil
		})
		if err != nil {
			return err
		}
		j.bytes = 0
		for i, n := range sizes {
			if j.bytes+n > journalBytes/2 && i > 0 {
				return tx.own("DELETE FROM "+feedTable.Name+" WHERE seq>0 AND seq NOT IN (SELECT seq FROM "+feedTable.Name+" WHERE seq>0 ORDER BY seq DESC LIMIT ?)",
					[]sqlite.Param{intParam(int64(i))}, nil)
			}
			j.bytes += n
		}
	}
	return nil
}

// journaled hands on what was committed.
func (w *worker) journaled(a *actor, b *Batch) {
	j := a.feed
	if j == nil {
		return
	}
	j.clear()
	if b != nil {
		j.head = b.Last
		w.store.opt.Feed.Committed(a.id, b)
	}
}

const (
	// What Journal gives at a time: at most so many commits, if it isn't asked for fewer, and bytes, one at least.
	pageBatches = 512
	pageBytes   = 1 << 20
)

// Journal reads what was committed behind a change. See Runner.
func (s *Store) Journal(ctx context.Context, database string, since int64, commits int) (list []*Batch, err error) {
	if commits <= 0 || commits > pageBatches {
		commits = pageBatches
	}
	err = s.Do(ctx, database, &Request{Job: JobFunc(func(tx *Tx) (err error) {
		list, err = tx.journal(since, commits)
		return err
	})})
	return list, err
}

var errPage = errors.New("enough for now")

func (tx *Tx) journal(since int64, commits int) (list []*Batch, err error) {
	j := tx.a.feed
	if j == nil || since < 0 || since > j.head {
		return nil, ErrUnheard
	}
	if since == j.head {
		return nil, nil
	}
	size := 0
	err = tx.own("SELECT seq, at, body FROM "+feedTable.Name+" WHERE seq>? ORDER BY seq LIMIT "+strconv.Itoa(commits), []sqlite.Param{intParam(since)}, func(st *sqlite.Stmt) error {
		if size > pageBytes {
			return errPage
		}
		b := &Batch{Last: st.Column(0).Int, At: st.Column(1).Int, body: slices.Clone(st.Column(2).Bytes)}
		b.First = b.Last - changesOf(b.body) + 1
		size += b.Size()
		list = append(list, b)
		return nil
	})
	if err != nil && !errors.Is(err, errPage) {
		return nil, err
	}
	next := since + 1
	for i, b := range list {
		// The first may have begun before. A gap has no changes, and begins behind itself.
		if b.First > next || i > 0 && b.First != next {
			return nil, ErrUnheard
		}
		next = b.Last + 1
	}
	if len(list) == 0 {
		return nil, ErrUnheard
	}
	return list, nil
}

// breakJournal puts a gap into a file that is about to take a database's place: what becomes of its rows isn't noted.
func breakJournal(path string, now time.Time) error {
	err := withScratch(path, func(c *sqlite.Conn) error {
		names, err := c.TableNames(SystemPrefix)
		if err != nil || !slices.Contains(names, feedTable.Name) {
			return err
		}
		if err := execute(c, "INSERT INTO "+feedTable.Name+" SELECT max(seq)+1, ?, NULL FROM "+feedTable.Name, []sqlite.Param{intParam(now.UnixMilli())}); err != nil {
			return err
		}
		return execute(c, "DELETE FROM "+feedTable.Name+" WHERE seq>0 AND seq<(SELECT max(seq) FROM "+feedTable.Name+")", nil)
	})
	if err == nil {
		err = sqlite.SetLogMode(path)
	}
	return err
}
