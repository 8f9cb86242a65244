package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// Gate decides what a caller may run. The actor asks it because only the actor can compile a statement; what it
// decides and why is not the store's business.
type Gate interface {
	// Permit is asked for each access while a statement is compiled, whoever calls: some pragmas act then.
	Permit(sqlite.Access) error
	// Judge is asked about every statement before each run of it.
	Judge(*sqlite.Stmt) error
}

// Binder is a Gate that has some statements run in other words, so that they read only some rows of a table.
type Binder interface {
	Gate
	// Instead is the text to run in the place of a judged statement; "" is the statement itself.
	Instead(*sqlite.Stmt) (string, error)
	// PermitInstead is Permit for such a text.
	PermitInstead(sqlite.Access) error
	// Vouch decides on a statement that runs in the place of a judged one.
	Vouch(s, judged *sqlite.Stmt) error
	// Uncompiled is what is said of a text of Instead's that can't be compiled.
	Uncompiled(error) error
	// Fenced is the text to run once more in the place of such a statement that failed; "" if its error stands.
	Fenced(*sqlite.Stmt, error) string
	// Claims are what such a text knows of the caller.
	Claims() sqlite.Claims
}

// Job is what a request does with its database.
type Job interface {
	// Run does the work. It may be called again from the start, with everything that the earlier call wrote
	// undone: it must begin with a clean slate each time, and must not act on anything but the Tx and its own
	// memory. If it returns an error, all that it wrote is undone.
	Run(tx *Tx) error
}

// JobFunc makes a Job of a function.
type JobFunc func(tx *Tx) error

// Run calls f.
func (f JobFunc) Run(tx *Tx) error { return f(tx) }

// Request is one unit of work for a database. It must stay as it is until Do returns; longer if Do's error is
// ErrAbandoned.
type Request struct {
	// Gate judges the statements that the Job prepares; without one every statement is refused.
	Gate Gate
	Job  Job
	// Came is when the caller's request came in, as the store's clock tells: then the clock isn't read for it again. Zero is now.
	Came time.Time
	// Namespace is whose request it is: long statements of different namespaces take turns.
	Namespace string
	// Steps says that the Job ends its steps with Tx.Commit and takes a failed one back with Tx.Undo, so that each
	// needs a savepoint of its own.
	Steps bool
	// Alone asks for a commit boundary: the request runs in a group of its own.
	Alone bool

	// Payer is whom its rows are counted for, and Budget stops it where it costs too much; nil is no bound.
	Payer  Payer
	Budget Budget

	// Stats is filled in before Do returns.
	Stats Stats
	// Spent is what its statements read and wrote, those that failed too. It is filled in before Do returns.
	Spent sqlite.Counts
	// Filed tells that the request and its rows are counted in the database's file, with what it wrote.
	Filed bool
}

// Stats is where a request's time went.
type Stats struct {
	Wait   time.Duration // in the queue
	Engine time.Duration // in the engine, without the commit
	Parked time.Duration // waiting for a turn, as a long statement; part of neither
}

// Runner runs requests on the databases that it owns.
type Runner interface {
	// Do runs a request on a database and returns when it is answered: for a write, after the sync of its
	// commit. The error is the Job's, or one of this package's.
	Do(ctx context.Context, database string, r *Request) error
	// Create makes an empty database, durably.
	Create(ctx context.Context, database string) error
	// CreateFrom makes a database of a file that nobody else has open, on the file system of the databases: durably and at once, without the system
	// tables that a branch leaves behind. The file is gone then. A failure makes nothing: ErrQuota where it is longer than a database may be.
	CreateFrom(ctx context.Context, database, file string) error
	// CreateBranch is CreateFrom for a branch, which knows of its fork and, unless the facts say that it has ended, records which rows change.
	CreateBranch(ctx context.Context, database, file string, n NewBranch) error
	// Listen has a database keep what is committed, for Options.FeedFor, with the values of rows if they are wanted. The answer is the last change: what follows
	// it is told. It is to be called again while somebody listens.
	Listen(ctx context.Context, database string, rows bool) (head int64, err error)
	// ListenForGood is Listen for somebody who need not call again, until it is called with false: then it ends as if Listen had been called last.
	ListenForGood(ctx context.Context, database string, on bool) (head int64, err error)
	// Journal is what was committed behind a change, as much as fits, and so many commits at most if that isn't 0; ErrUnheard where that isn't known.
	Journal(ctx context.Context, database string, since int64, commits int) ([]*Batch, error)
	// Delete ends a database: requests that wait get ErrNotFound, its files go.
	Delete(ctx context.Context, database string) error
	// Retire closes a database with a checkpoint. Its file stays as it is, and nothing reaches it: requests that come
	// from now on get ErrNotFound, until Admit. An error means that it isn't closed yet, or not all of its log was
	// copied back; it closes later then, by itself.
	Retire(ctx context.Context, database string) error
	// Admit lets requests reach a retired database again.
	Admit(ctx context.Context, database string) error
	// Ending is what a retired database ends with; its history has all of that afterwards. CopyEnded is Copy of one. While they run nobody may admit or delete
	// it: the caller sees to that.
	Ending(ctx context.Context, database string) (Ending, error)
	CopyEnded(ctx context.Context, database, path string) error
	// Copy writes the database as it is now to a new file at path, with every commit that was answered and no log
	// beside it. Requests go on meanwhile.
	Copy(ctx context.Context, database, path string) error
	// Rebuild replaces a database by the file that build leaves at the path that it is given, where there is what from
	// says. Reads go on meanwhile; writes get ErrRebuilding. Where build, or anything
	// else, fails the database is as it was.
	//
	// What along, if it isn't nil, says is there if, and only if, the new file is.
	//
	// When ctx ends and build doesn't come back soon, it is left alone with its file, and ctx's cause is the error.
	Rebuild(ctx context.Context, database string, from Beginning, along *Along, build func(path string) error) error
	// Position is the number of a database's last committed transaction, and when that was; 0 where no history is kept.
	Position(ctx context.Context, database string) (uint64, time.Time, error)
	// Keep hands what was committed so far to the history.
	Keep(ctx context.Context, database string) error
	// Share lets long work beside the databases take turns with their long statements.
	Share(ctx context.Context, namespace string) (look func() error, end func())
}

// Placement knows who owns a database. One machine owns all of its own; spread over several, the owner of another
// machine's database is a Runner that forwards.
type Placement interface {
	Owner(ctx context.Context, database string) (Runner, error)
}

// Owner is the store itself: on a single machine it owns every database.
func (s *Store) Owner(context.Context, string) (Runner, error) { return s, nil }

// The states of a call. Only the one who changes it may go on: the worker that runs it, the caller that leaves,
// the watchdog that gives it up.
const (
	callQueued    uint64 = iota
	callRunning          // a worker runs it
	callFinished         // it was run and judged; it is answered now or with the group's commit
	callCancelled        // its caller left while it waited: the actor throws it away
	callAbandoned        // it was answered over its time limit while the engine still runs it

	callStates = 8 // the state stands below the number of the use, see call.state
)

// call is a request in an actor's queue.
type call struct {
	ctx    context.Context
	req    *Request
	act    act // not a request, but something that the actor does between two groups
	err    error
	done   chan struct{} // one token when answered
	queued time.Time

	// state is use × callStates + state. Calls are used again, and the watchdog looks at them without a lock: the
	// number of the use keeps it from giving up a later one.
	state    atomic.Uint64
	deadline atomic.Int64 // Unix ns when the running statement is over its limit; 0 while none runs

	again replay
}

// replay is what a run of a call leaves for its next run.
type replay struct {
	poison  map[int]poison // statements that ended the transaction, counted from 1: they are not run again
	retried bool           // it found no memory once
}

// poison is how a statement ended the transaction, and what it had read and written by then.
type poison struct {
	why  error
	cost sqlite.Counts
}

// learn notes that a statement ended the transaction. False means that there is nothing to learn, so that another
// run would end the same way.
func (r *replay) learn(index int, why error, cost sqlite.Counts) bool {
	if index == 0 || r.poison[index].why != nil {
		return false
	}
	if r.poison == nil {
		r.poison = map[int]poison{}
	}
	r.poison[index] = poison{why, cost}
	return true
}

// act is what an actor does with its database outside of any transaction.
type act func(w *worker, a *actor) error

var calls = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

func newCall(ctx context.Context, r *Request, now time.Time) *call {
	c := calls.Get().(*call)
	c.ctx, c.req, c.act, c.err, c.queued = ctx, r, nil, nil, now
	c.again = replay{}
	c.deadline.Store(0)
	c.state.Store((c.state.Load()/callStates+1)*callStates + callQueued)
	return c
}

// move changes the state and tells whether it was from.
func (c *call) move(from, to uint64) bool {
	use := c.state.Load() / callStates * callStates
	return c.state.CompareAndSwap(use+from, use+to)
}

func (c *call) is(state uint64) bool { return c.state.Load()%callStates == state }

// answer lets the caller go on. The call is the caller's from here.
func (c *call) answer(err error) {
	c.err = err
	c.done <- struct{}{}
}

func (c *call) recycle() {
	c.ctx, c.req, c.act, c.err, c.again = nil, nil, nil, nil, replay{}
	calls.Put(c)
}
