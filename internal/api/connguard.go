package api

import (
	"context"
	"net"
	"net/http"
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
)

// ConnGuard closes connections that take too long. http.Server's own timeouts set two timers a request, which costs
// as much as reading the query: one goroutine that looks at all connections once a second does the same.
type ConnGuard struct {
	now   func() time.Time
	clock atomic.Int64 // the last tick, in Unix ns: exact to a tick, and free to read

	mu    sync.Mutex
	conns map[*guardedConn]struct{}
}

// NewConnGuard returns a guard; Run makes it work.
func NewConnGuard(now func() time.Time) *ConnGuard {
	if now == nil {
		now = time.Now
	}
	g := &ConnGuard{now: now, conns: map[*guardedConn]struct{}{}}
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
}

// Read notes the first byte of a header.
func (c *guardedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.working.Load() && c.began.Load() == 0 {
		c.began.Store(c.guard.clock.Load())
	}
	return n, err
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
	g := &guardedConn{Conn: c, guard: l.guard}
	g.since.Store(l.guard.clock.Load())
	l.guard.mu.Lock()
	l.guard.conns[g] = struct{}{}
	l.guard.mu.Unlock()
	return g, nil
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
		g.mu.Lock()
		delete(g.conns, c)
		g.mu.Unlock()
	}
}

// Run looks at the connections until ctx ends.
func (g *ConnGuard) Run(ctx context.Context) {
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
