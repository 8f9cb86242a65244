package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	idleListeners = 5000
	idleBar       = 40e3 // bytes each
	idleHere      = 1000 // of a database

	busyListeners = 500
	busyRate      = 100_000 // events a second, delivered
	busyBar       = 250 * time.Millisecond
	busyTime      = 5 * time.Second
	busyCommits   = 50 // a second
	busyRows      = 5  // a commit
	busySample    = 16 // of so many events the time of one is looked at

	floodTime    = 3 * time.Second
	floodWriters = 32
	floodRows    = 100 // a commit

	deafTurns   = 21
	deafInserts = 300
	deafBytes   = 20_000 // a row: more together than the network's buffers take, and the listeners get them
	deafBar     = 1.1
)

// measureFeed looks at who listens: idle ones' memory, how fast a crowd hears, and whether one that doesn't read slows writers.
func measureFeed(ctx context.Context, ours *program, p pace) ([]verdict, error) {
	s, err := ours.start(ctx, "feed", 0)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	c, err := dial(s.address)
	if err != nil {
		return nil, err
	}
	defer c.close()
	var verdicts []verdict
	for _, measure := range []func(context.Context, *server, *client, pace) ([]verdict, error){measureBusyFeed, measureFlood, measureDeafFeed, measureIdleFeed} {
		more, err := measure(ctx, s, c, p)
		if err != nil {
			return nil, err
		}
		verdicts = append(verdicts, more...)
	}
	lane, err := measureLane(ctx, filepath.Join(ours.dir, "lane"))
	return append(verdicts, lane...), err
}

// hearer is a WebSocket that listens.
type hearer struct {
	conn   net.Conn
	r      *bufio.Reader
	opcode byte // of the frame that was read last
}

// closing tells whether the frame that was read last closes the connection (RFC 6455, section 5.5.1).
func (h *hearer) closing() bool { return h.opcode == 8 }

// hear opens a WebSocket, which has heard that it is subscribed then.
func hear(s *server, slug, query string, buffer int) (*hearer, error) {
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	h := &hearer{conn: conn, r: bufio.NewReaderSize(conn, buffer)}
	_, err = fmt.Fprintf(conn, "GET /v1/db/%s/%s/subscribe%s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		benchNamespace, slug, query, benchToken)
	line := ""
	if err == nil {
		line, err = h.r.ReadString('\n')
	}
	if err == nil && !strings.Contains(line, " 101 ") {
		err = fmt.Errorf("%w: %s", errRefused, strings.TrimSpace(line))
	}
	for err == nil && line != "\r\n" {
		line, err = h.r.ReadString('\n')
	}
	if err == nil {
		_, err = h.frame(nil)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return h, nil
}

// frame reads a frame of the server's into buf.
func (h *hearer) frame(buf []byte) ([]byte, error) {
	var head [10]byte
	if _, err := io.ReadFull(h.r, head[:2]); err != nil {
		return nil, err
	}
	h.opcode = head[0] & 0x0f
	n := int(head[1])
	switch n {
	case 126:
		if _, err := io.ReadFull(h.r, head[:2]); err != nil {
			return nil, err
		}
		n = int(binary.BigEndian.Uint16(head[:2]))
	case 127:
		if _, err := io.ReadFull(h.r, head[:8]); err != nil {
			return nil, err
		}
		n = int(binary.BigEndian.Uint64(head[:8]))
	}
	buf = slices.Grow(buf[:0], n)[:n]
	_, err := io.ReadFull(h.r, buf)
	return buf, err
}

// measureBusyFeed has a crowd listen to a database that commits, and looks at how long it takes from commit to receipt.
func measureBusyFeed(ctx context.Context, s *server, c *client, _ pace) ([]verdict, error) {
	if _, err := c.do(queryRequest("busy", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)").bytes); err != nil {
		return nil, err
	}
	var heard atomic.Int64
	var mu sync.Mutex
	var times []time.Duration
	var failed error
	var wg sync.WaitGroup
	defer wg.Wait()
	var all []*hearer
	defer func() {
		for _, h := range all {
			h.conn.Close()
		}
	}()
	stamp := []byte(`"ts":"`)
	for range busyListeners {
		h, err := hear(s, "busy", "", 16<<10)
		if err != nil {
			return nil, err
		}
		all = append(all, h)
		wg.Go(func() {
			var buf []byte
			var own []time.Duration
			defer func() {
				mu.Lock()
				times = append(times, own...)
				mu.Unlock()
			}()
			for n := 0; ; n++ {
				var err error
				if buf, err = h.frame(buf); err != nil {
					if !errors.Is(err, net.ErrClosed) {
						mu.Lock()
						failed = errors.Join(failed, err)
						mu.Unlock()
					}
					return
				}
				heard.Add(1)
				if n%busySample == 0 {
					at := bytes.Index(buf, stamp)
					if at < 0 {
						continue
					}
					at += len(stamp)
					if end := bytes.IndexByte(buf[at:], '"'); end > 0 {
						if t, err := time.Parse(time.RFC3339, string(buf[at:at+end])); err == nil {
							own = append(own, time.Since(t))
						}
					}
				}
			}
		})
	}
	insert := queryRequest("busy", "INSERT INTO t(v) VALUES (1)"+strings.Repeat(", (1)", busyRows-1))
	began := time.Now()
	committed := int64(0)
	for time.Since(began) < busyTime {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if _, err := c.do(insert.bytes); err != nil {
			return nil, err
		}
		committed += busyRows
		time.Sleep(time.Until(began.Add(time.Duration(committed/busyRows) * time.Second / busyCommits)))
	}
	for late := time.Now(); heard.Load() < committed*busyListeners && time.Since(late) < 5*time.Second; {
		time.Sleep(5 * time.Millisecond)
	}
	took := time.Since(began)
	for _, h := range all {
		h.conn.Close()
	}
	wg.Wait()
	if failed != nil {
		return nil, fmt.Errorf("of %d listeners: %w", busyListeners, failed)
	}
	if missing := committed*busyListeners - heard.Load(); missing != 0 {
		return nil, fmt.Errorf("%d listeners missed %d events", busyListeners, missing)
	}
	slices.Sort(times)
	rate := float64(heard.Load()) / took.Seconds()
	return []verdict{
		{Work: "feed, 500 listeners", Metric: "events a second", Ours: rate, Bar: "≥ " + formatCount(busyRate), Pass: rate >= busyRate, Judged: true, format: formatCount},
		limit("feed, 500 listeners", "commit to receipt, p99", float64(times[len(times)*99/100]), float64(busyBar), formatMillis),
	}, nil
}

// measureFlood writes as fast as it goes: several events go to the network at a time then. Who falls behind all the same is closed with 1013, and with nothing else.
func measureFlood(ctx context.Context, s *server, c *client, _ pace) ([]verdict, error) {
	if _, err := c.do(queryRequest("flood", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)").bytes); err != nil {
		return nil, err
	}
	const tryAgainLater = 1013
	var events, reads, behind atomic.Int64
	var mu sync.Mutex
	var odd error
	failed := func(err error) {
		mu.Lock()
		odd = errors.Join(odd, err)
		mu.Unlock()
	}
	var listeners sync.WaitGroup
	var all []*hearer
	end := func() {
		for _, h := range all {
			h.conn.Close()
		}
		listeners.Wait()
	}
	defer end()
	for range busyListeners {
		h, err := hear(s, "flood", "", 64<<10)
		if err != nil {
			return nil, err
		}
		all = append(all, h)
		h.r = bufio.NewReaderSize(&countedReads{h.conn, &reads}, 64<<10)
		listeners.Go(func() {
			var buf []byte
			for {
				var err error
				if buf, err = h.frame(buf); err != nil {
					if !errors.Is(err, net.ErrClosed) {
						failed(err)
					}
					return
				}
				if h.closing() {
					behind.Add(1)
					if len(buf) < 2 || binary.BigEndian.Uint16(buf) != tryAgainLater {
						failed(fmt.Errorf("closed with %q", buf))
					}
					return
				}
				events.Add(1)
			}
		})
	}
	insert := queryRequest("flood", "INSERT INTO t(v) VALUES (1)"+strings.Repeat(", (1)", floodRows-1))
	var writers sync.WaitGroup
	began := time.Now()
	for range floodWriters {
		writers.Go(func() {
			w, err := dial(s.address)
			if err != nil {
				failed(err)
				return
			}
			defer w.close()
			for time.Since(began) < floodTime && ctx.Err() == nil {
				if _, err := w.do(insert.bytes); err != nil {
					failed(err)
					return
				}
			}
		})
	}
	writers.Wait()
	took, told := time.Since(began), events.Load()
	end()
	if odd != nil {
		return nil, fmt.Errorf("beyond what %d listeners are promised: %w", busyListeners, odd)
	}
	together := float64(told) / float64(max(1, reads.Load()))
	return []verdict{
		{Work: "feed, 500 listeners, writers without end", Metric: "events a second", Ours: float64(told) / took.Seconds(), Bar: "shown", Pass: true, format: formatCount},
		{Work: "feed, 500 listeners, writers without end", Metric: "events at a time", Ours: together, Bar: "> 1", Pass: together > 1, Judged: true, format: func(f float64) string { return fmt.Sprintf("%.1f", f) }},
		{Work: "feed, 500 listeners, writers without end", Metric: "closed with 1013", Ours: float64(behind.Load()), Bar: "shown", Pass: true, format: formatCount},
	}, nil
}

// countedReads counts how often a connection was read.
type countedReads struct {
	net.Conn
	n *atomic.Int64
}

// Read reads.
func (c *countedReads) Read(b []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Read(b)
}

// measureDeafFeed has a writer write beside one who listens and doesn't read, and beside none of that kind.
func measureDeafFeed(ctx context.Context, s *server, c *client, _ pace) ([]verdict, error) {
	if _, err := c.do(queryRequest("deaf", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)").bytes); err != nil {
		return nil, err
	}
	insert := queryRequest("deaf", "INSERT INTO t(v) VALUES ('"+strings.Repeat("x", deafBytes)+"')")
	well, err := hear(s, "deaf", "?rows=1", 16<<10)
	if err != nil {
		return nil, err
	}
	defer well.conn.Close()
	go func() {
		var buf []byte
		for err := error(nil); err == nil; {
			buf, err = well.frame(buf)
		}
	}()
	burst := func() (float64, error) {
		began := time.Now()
		for range deafInserts {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			if _, err := c.do(insert.bytes); err != nil {
				return 0, err
			}
		}
		return float64(time.Since(began)), nil
	}
	beside := func() (float64, error) {
		deaf, err := hear(s, "deaf", "?rows=1", 16)
		if err != nil {
			return 0, err
		}
		defer deaf.conn.Close()
		return burst()
	}
	var ratios []float64
	for turn := range deafTurns {
		order := []func() (float64, error){burst, beside}
		var took [2]float64
		for i := range order {
			k := (i + turn) % 2 // each is first as often
			if took[k], err = order[k](); err != nil {
				return nil, err
			}
		}
		ratios = append(ratios, took[1]/took[0])
	}
	slices.Sort(ratios)
	return []verdict{limit("feed, one that doesn't read", "time of inserts", ratios[len(ratios)/2], deafBar, func(f float64) string { return fmt.Sprintf("%.2f ×", f) })}, nil
}

// measureIdleFeed has thousands listen to databases that nobody writes.
func measureIdleFeed(ctx context.Context, s *server, c *client, pace pace) ([]verdict, error) {
	for i := range idleListeners / idleHere {
		if _, err := c.do(queryRequest(fmt.Sprintf("idle-%d", i), "CREATE TABLE t(a)").bytes); err != nil {
			return nil, err
		}
	}
	if err := wait(ctx, pace.settle, nil); err != nil {
		return nil, err
	}
	before, err := residentBytes(s.pid())
	if err != nil {
		return nil, err
	}
	var all []*hearer
	defer func() {
		for _, h := range all {
			h.conn.Close()
		}
	}()
	for i := range idleListeners {
		h, err := hear(s, fmt.Sprintf("idle-%d", i/idleHere), "", 16)
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	if err := wait(ctx, pace.settle, nil); err != nil {
		return nil, err
	}
	after, err := residentBytes(s.pid())
	if err != nil {
		return nil, err
	}
	return []verdict{limit("feed, 5,000 idle listeners", "memory of one", float64(after-before)/idleListeners, idleBar, func(f float64) string { return fmt.Sprintf("%.1f KB", f/1e3) })}, nil
}
