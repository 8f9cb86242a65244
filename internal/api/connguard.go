package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// headerTime is how long a client may take to send a request's header once it began, idleTime how long a kept
	// connection may rest.
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	guardTick  = time.Second
	// listenAfter is how long a request runs, at least, before anybody looks whether its client is still there; at most
	// twice as long.
	listenAfter = 5 * time.Millisecond
)

// ConnGuard closes connections that take too long. http.Server's own timeouts set two timers a request, which costs
// as much as reading the query: one goroutine that looks at all connections once a second does the same.
type ConnGuard struct {
	now   func() time.Time
	clock atomic.Int64 // the last tick, in Unix ns: exact to a tick, and free to read

	mu    sync.Mutex
	conns map[*guardedConn]struct{}

	waitsMu sync.Mutex
	waits   []*guardedConn // those whose listening for the client's end is put off
	listens bool           // somebody looks after them
	expects chan struct{}  // wakes who does
}

// NewConnGuard returns a guard; Run makes it work.
func NewConnGuard(now func() time.Time) *ConnGuard {
	if now == nil {
		now = time.Now
	}
	g := &ConnGuard{now: now, conns: map[*guardedConn]struct{}{}, expects: make(chan struct{}, 1)}
	g.clock.Store(now().UnixNano())
	return g
}

// guardedConn notes when a request began to come.
type guardedConn struct {
	net.Conn
	guard   *ConnGuard
	since   atomic.Int64 // when it began to rest
	began   atomic.Int64 // when the first byte of a header came; 0 while it rests
	working atomic.Bool  // a handler has it

	mu      sync.Mutex
	recall  chan struct{} // ends the wait of a read
	waiting bool          // a read waits to begin
	reading bool          // a read has begun
	past    bool          // the deadline for reading is over, whether or not the connection was told
	limited bool          // the connection was told of a deadline
	listed  bool          // it is among the guard's waits
	turn    uint64        // counts the waits
	seen    uint64        // the listener's: turn at its last look
}

// Read notes the first byte of a header.
//
// While a handler runs, net/http reads one byte to learn of a client that leaves, and takes the read back by a deadline
// in the past once the handler is done. For a query of 100 µs these are three calls of the system, and a thread's waking,
// for nothing: such a read begins listenAfter later, and taking it back until then costs none.
func (c *guardedConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	if len(b) == 1 && !c.past && c.working.Load() {
		c.wait()
	}
	if c.past {
		c.mu.Unlock()
		return 0, os.ErrDeadlineExceeded
	}
	c.reading = true
	c.mu.Unlock()
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	if n > 0 && !c.working.Load() && c.began.Load() == 0 {
		c.began.Store(c.guard.clock.Load())
	}
	return n, err
}

// wait returns when the read is due or recalled. The connection is locked, but not meanwhile.
func (c *guardedConn) wait() {
	select {
	case <-c.recall: // of an earlier wait
	default:
	}
	c.waiting = true
	c.turn++
	listed := c.listed
	c.listed = true
	c.mu.Unlock()
	if listed || c.guard.expect(c) {
		<-c.recall
	}
	c.mu.Lock()
	c.waiting = false
}

// wake ends a wait. The connection is locked.
func (c *guardedConn) wake() {
	if c.waiting {
		select {
		case c.recall <- struct{}{}:
		default:
		}
	}
}

// SetReadDeadline tells the connection only what a read that has begun, or will begin, must know.
func (c *guardedConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.past = !t.IsZero() && t.UnixNano() < c.guard.clock.Load()
	if c.past {
		c.wake()
	}
	if c.past && !c.reading || t.IsZero() && !c.limited {
		return nil
	}
	c.limited = !t.IsZero()
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline sets both deadlines.
func (c *guardedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// expect puts a connection among those whose reads are due soon; false means that nobody looks after them.
func (g *ConnGuard) expect(c *guardedConn) bool {
	g.waitsMu.Lock()
	defer g.waitsMu.Unlock()
	if !g.listens {
		return false
	}
	g.waits = append(g.waits, c)
	select {
	case g.expects <- struct{}{}:
	default:
	}
	return true
}

// listen ends the waits that are due: every listenAfter while requests come, else never.
func (g *ConnGuard) listen(ctx context.Context) {
	g.waitsMu.Lock()
	g.listens = true
	g.waitsMu.Unlock()
	tick := time.NewTimer(listenAfter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-g.expects:
		}
		for more := true; more && ctx.Err() == nil; more = g.due(false) {
			tick.Reset(listenAfter)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
		if ctx.Err() != nil {
			g.due(true)
			return
		}
	}
}

// due lets the reads begin that have waited since the last look, or all, and forgets connections on which nothing came
// since then. It returns whether any are left. After all nobody waits any more.
func (g *ConnGuard) due(all bool) bool {
	g.waitsMu.Lock()
	defer g.waitsMu.Unlock()
	if all {
		g.listens = false
	}
	g.waits = slices.DeleteFunc(g.waits, func(c *guardedConn) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		old := c.seen == c.turn
		c.seen = c.turn
		if old || all {
			c.wake()
			c.listed = false
		}
		return !c.listed
	})
	return len(g.waits) > 0
}

type guardedListener struct {
	net.Listener
	guard *ConnGuard
}

// Accept guards the connection.
func (l *guardedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.guard.add(c), nil
}

func (g *ConnGuard) add(conn net.Conn) *guardedConn {
	c := &guardedConn{Conn: conn, guard: g, recall: make(chan struct{}, 1)}
	c.since.Store(g.clock.Load())
	g.mu.Lock()
	g.conns[c] = struct{}{}
	g.mu.Unlock()
	return c
}

// Attach makes the server's connections through l the guard's, and returns the listener to serve on.
func (g *ConnGuard) Attach(web *http.Server, l net.Listener) net.Listener {
	web.ConnState = g.state
	web.RegisterOnShutdown(g.CloseResting) // called when the listener is closed: no new ones come
	return &guardedListener{l, g}
}

// state follows a connection through net/http.
func (g *ConnGuard) state(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*guardedConn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		c.working.Store(true)
		c.began.Store(0)
	case http.StateIdle:
		c.since.Store(g.clock.Load())
		c.working.Store(false)
	case http.StateClosed, http.StateHijacked:
		c.working.Store(false)
		g.mu.Lock()
		delete(g.conns, c)
		g.mu.Unlock()
	}
}

// Run looks at the connections until ctx ends.
func (g *ConnGuard) Run(ctx context.Context) {
	var listener sync.WaitGroup
	defer listener.Wait()
	listener.Go(func() { g.listen(ctx) })
	tick := time.NewTicker(guardTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			g.sweep()
		}
	}
}

// CloseResting closes the connections on which no request is on its way, also those that never had one: net/http
// leaves the latter open for 5 s when it shuts down.
func (g *ConnGuard) CloseResting() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		if !c.working.Load() && c.began.Load() == 0 {
			c.Conn.Close()
		}
	}
}

// sweep closes what is over its time.
func (g *ConnGuard) sweep() {
	now := g.now().UnixNano()
	g.clock.Store(now)
	var late []*guardedConn
	g.mu.Lock()
	for c := range g.conns {
		if c.working.Load() {
			continue
		}
		if began := c.began.Load(); began != 0 && now-began > int64(headerTime) || began == 0 && now-c.since.Load() > int64(idleTime) {
			late = append(late, c)
		}
	}
	g.mu.Unlock()
	for _, c := range late {
		c.Conn.Close()
	}
}
