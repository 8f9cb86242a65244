package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
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
		c := g.add(here)
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

// TestListening puts off the read that notices a client's leaving, and takes it back without a word to the connection.
func TestListening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewConnGuard(nil)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); g.Run(ctx) }()
		synctest.Wait()
		here, there := net.Pipe()
		told := &toldConn{Conn: here}
		c := g.add(told)
		g.state(c, http.StateActive)
		long := time.Unix(1, 0) // what net/http takes
		read := func() chan error {
			done := make(chan error, 1)
			go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
			synctest.Wait()
			return done
		}
		for range 3 { // quick requests
			done := read()
			c.SetReadDeadline(long)
			if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("read after the deadline:", err)
			}
			c.SetReadDeadline(time.Time{})
		}
		if told.reads+told.deadlines != 0 {
			t.Fatalf("%d reads and %d deadlines reached the connection", told.reads, told.deadlines)
		}
		// A long one: a client that leaves is noticed.
		done, start := read(), time.Now()
		go there.Close()
		if err := <-done; err != io.EOF {
			t.Fatal(err)
		}
		if took := time.Since(start); took < listenAfter || took > 2*listenAfter {
			t.Fatalf("noticed after %v", took)
		}
		// A long one that is recalled while the connection is being read, and a deadline that comes.
		here, there = net.Pipe()
		told = &toldConn{Conn: here}
		c = g.add(told)
		g.state(c, http.StateActive)
		done = read()
		time.Sleep(3 * listenAfter)
		c.SetReadDeadline(long)
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || told.deadlines != 1 {
			t.Fatal(err, told.deadlines)
		}
		c.SetReadDeadline(time.Time{})
		c.SetDeadline(time.Now().Add(time.Second))
		start = time.Now()
		if err := <-read(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Fatal(err, time.Since(start))
		}
		c.SetReadDeadline(time.Time{})
		// At the end nobody waits for the listener.
		done = read()
		stop()
		<-ended
		go there.Write([]byte("x"))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		go there.Write([]byte("x"))
		if err := <-read(); err != nil {
			t.Fatal(err)
		}
		there.Close()
	})
}

type toldConn struct {
	net.Conn
	reads, deadlines int
}

func (c *toldConn) Read(b []byte) (int, error) { c.reads++; return c.Conn.Read(b) }
func (c *toldConn) SetReadDeadline(t time.Time) error {
	c.deadlines++
	return c.Conn.SetReadDeadline(t)
}
