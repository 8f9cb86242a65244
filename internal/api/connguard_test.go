package api

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestConnGuard closes a header that doesn't end and a connection that rests too long, and leaves a slow handler alone.
func TestConnGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewConnGuard(nil)
		here, there := net.Pipe()
		defer there.Close()
		c := &guardedConn{Conn: here, guard: g}
		c.since.Store(g.clock.Load())
		g.conns[c] = struct{}{}
		pass := func(d time.Duration) {
			for range int(d / guardTick) {
				time.Sleep(guardTick) // the bubble's clock, not ours
				g.sweep()
			}
		}
		open := func() bool {
			_ = there.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := there.Read(make([]byte, 1))
			return err != io.EOF
		}
		g.state(c, http.StateNew)
		go io.Copy(there, strings.NewReader("GET / HT"))
		c.Read(make([]byte, 4))
		g.state(c, http.StateActive)
		pass(5 * time.Minute)
		if !open() {
			t.Fatal("closed while a handler works")
		}
		g.state(c, http.StateIdle)
		pass(idleTime - 2*time.Second)
		if !open() {
			t.Fatal("closed before its time to rest was over")
		}
		c.Read(make([]byte, 4))
		pass(headerTime - 2*time.Second)
		if !open() {
			t.Fatal("closed before its time for a header was over")
		}
		pass(4 * time.Second)
		if open() {
			t.Fatal("a header that does not end kept its connection")
		}
	})
}
