package main

import (
	"errors"
	"path/filepath"
	"sync"
	"time"
)

// errGroupLost is answered to the rest of a group whose transaction SQLite has
// rolled back whole (disk full, I/O error).
var errGroupLost = errors.New("the transaction was rolled back")

// maxGroup is how many requests share one commit.
const maxGroup = 256

// database is one actor: a goroutine that alone touches its connection.
type database struct {
	store *store
	slug  string
	path  string

	mu      sync.Mutex
	queue   []*job
	ending  bool // no job is taken any more
	asleep  bool // the actor waits on wake
	wake    chan struct{}
	ended   chan struct{} // closed when the connection is
	newer   *database     // neighbours in the store's list of open databases
	older   *database
	former  *database // the same file's last actor, still closing it
	started time.Time // of the running group
}

// store opens databases on demand and closes the least recently used idle one
// when there are too many.
type store struct {
	dir     string
	maxOpen int
	workers workers

	mu     sync.Mutex
	open   map[string]*database
	ending map[string]*database
	newest *database
	oldest *database
}

func newStore(dir string, maxOpen int) *store {
	return &store{dir: dir, maxOpen: maxOpen, open: map[string]*database{}, ending: map[string]*database{}}
}

// do runs the job in its database's actor and returns when its answer may
// leave: after the commit that covers it.
func (s *store) do(slug string, j *job) {
	for {
		d := s.database(slug)
		if d.submit(j) {
			<-j.done
			return
		}
		<-d.ended
	}
}

func (s *store) database(slug string) *database {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.open[slug]; ok {
		if d != s.newest {
			s.unlink(d)
			s.link(d)
		}
		return d
	}
	// Where all are busy none is closed; the next miss tries again.
	for d := s.oldest; len(s.open) >= s.maxOpen && d != nil; d = d.newer {
		if d.end() {
			s.unlink(d)
			delete(s.open, d.slug)
			s.ending[d.slug] = d
			break
		}
	}
	d := &database{
		store: s, slug: slug, path: filepath.Join(s.dir, slug+".db"),
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
		former: s.ending[slug],
	}
	s.open[d.slug] = d
	s.link(d)
	go d.live()
	return d
}

func (s *store) link(d *database) {
	d.older, d.newer = s.newest, nil
	if s.newest != nil {
		s.newest.newer = d
	} else {
		s.oldest = d
	}
	s.newest = d
}

func (s *store) unlink(d *database) {
	if d.newer != nil {
		d.newer.older = d.older
	} else {
		s.newest = d.older
	}
	if d.older != nil {
		d.older.newer = d.newer
	} else {
		s.oldest = d.newer
	}
}

// closeAll ends every database and waits for it. No request may be running.
func (s *store) closeAll() {
	s.mu.Lock()
	var all []*database
	for _, d := range s.open {
		all = append(all, d)
	}
	for _, d := range s.ending {
		all = append(all, d)
	}
	s.open, s.newest, s.oldest = map[string]*database{}, nil, nil
	s.mu.Unlock()
	for _, d := range all {
		d.stop()
	}
	for _, d := range all {
		<-d.ended
	}
}

// submit queues the job; it reports false when the database is closing.
func (d *database) submit(j *job) bool {
	d.mu.Lock()
	if d.ending {
		d.mu.Unlock()
		return false
	}
	d.queue = append(d.queue, j)
	wake := d.asleep
	d.asleep = false
	d.mu.Unlock()
	if wake {
		d.wake <- struct{}{}
	}
	return true
}

// end asks an idle database to close; it reports false when it is busy.
func (d *database) end() bool {
	d.mu.Lock()
	if !d.asleep || len(d.queue) > 0 {
		d.mu.Unlock()
		return false
	}
	d.ending, d.asleep = true, false
	d.mu.Unlock()
	d.wake <- struct{}{}
	return true
}

// stop asks the database to close once its queue is done.
func (d *database) stop() {
	d.mu.Lock()
	wake := d.asleep
	d.ending, d.asleep = true, false
	d.mu.Unlock()
	if wake {
		d.wake <- struct{}{}
	}
}

// live is the actor's goroutine.
func (d *database) live() {
	if d.former != nil {
		<-d.former.ended
		d.former = nil
	}
	w := d.store.workers.get()
	c, err := w.open(d.path)
	var spare []*job
	for {
		d.mu.Lock()
		if len(d.queue) == 0 {
			if d.ending {
				d.mu.Unlock()
				break
			}
			d.asleep = true
			d.mu.Unlock()
			d.store.workers.put(w)
			<-d.wake
			w = d.store.workers.get()
			continue
		}
		jobs := d.queue
		d.queue = spare[:0]
		d.mu.Unlock()
		for group := jobs; len(group) > 0; {
			n := min(len(group), maxGroup)
			if err != nil {
				for _, j := range group[:n] {
					j.answer(err)
				}
			} else {
				d.commit(w, c, group[:n])
			}
			group = group[n:]
		}
		clear(jobs)
		spare = jobs
	}
	if c != nil {
		c.close(w)
	}
	d.store.workers.put(w)
	d.store.mu.Lock()
	if d.store.ending[d.slug] == d {
		delete(d.store.ending, d.slug)
	}
	d.store.mu.Unlock()
	close(d.ended)
}

var (
	sqlBegin    = []byte("BEGIN")
	sqlCommit   = []byte("COMMIT")
	sqlRollback = []byte("ROLLBACK")
	sqlSave     = []byte("SAVEPOINT r")
	sqlUndo     = []byte("ROLLBACK TO r")
	sqlRelease  = []byte("RELEASE r")
)

// control runs one of the statements above.
func (c *conn) control(w *worker, sql []byte) error {
	s, err := c.prepare(w, sql)
	if err != nil {
		return err
	}
	return c.stepControl(w, s)
}

// commit runs a group. Reads before the group's first write are answered at
// once; from then on everything waits for the group's commit, since it may
// have seen the write.
func (d *database) commit(w *worker, c *conn, group []*job) {
	d.started = time.Now()
	for len(group) > 0 && c.readsOnly(w, group[0]) {
		group[0].answer(c.runJob(w, group[0], d.started))
		group = group[1:]
	}
	if len(group) == 0 {
		return
	}
	defer c.checkpoint(w, false)
	if len(group) == 1 {
		group[0].answer(c.runLone(w, group[0], d.started))
		return
	}
	if err := c.control(w, sqlBegin); err != nil {
		for _, j := range group {
			j.answer(err)
		}
		return
	}
	for _, j := range group {
		j.err = c.runSaved(w, j, d.started)
	}
	err := c.control(w, sqlCommit)
	if err != nil && !c.autocommit(w) {
		// The commit's own error is what the group is told.
		_ = c.control(w, sqlRollback)
	}
	for _, j := range group {
		if err != nil {
			j.err = err
		}
		j.answer(j.err)
	}
}

// runLone runs a job that shares its commit with nobody.
func (c *conn) runLone(w *worker, j *job, started time.Time) error {
	if !j.batch || !j.transaction {
		return c.runJob(w, j, started)
	}
	err := c.control(w, sqlBegin)
	if err != nil {
		return err
	}
	if err = c.runJob(w, j, started); err == nil {
		err = c.control(w, sqlCommit)
	}
	if err != nil && !c.autocommit(w) {
		_ = c.control(w, sqlRollback)
	}
	return err
}

// runSaved runs a job of a group in a savepoint of its own.
func (c *conn) runSaved(w *worker, j *job, started time.Time) error {
	if c.autocommit(w) {
		return errGroupLost
	}
	if err := c.control(w, sqlSave); err != nil {
		return err
	}
	err := c.runJob(w, j, started)
	if err != nil && (!j.batch || j.transaction) {
		if undo := c.control(w, sqlUndo); undo != nil {
			return undo
		}
	}
	if release := c.control(w, sqlRelease); release != nil {
		return release
	}
	return err
}
