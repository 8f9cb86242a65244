package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/persqld/persqld/internal/feed"
)

const (
	// maxMessage is the longest message of a client, in bytes: 200 names of tables.
	maxMessage = 64 << 10
	// corkBytes is how much is put together for one write to the network.
	corkBytes = 64 << 10
	// closeTime is how long a WebSocket may take to answer that it closes.
	closeTime = time.Second
	// socketBuffer is the buffer of what is written, a connection: frames' headers and short messages.
	socketBuffer = 512
)

// corkedConn puts what is written to it together, while it is corked.
type corkedConn struct {
	net.Conn

	mu     sync.Mutex
	corked bool
	buf    []byte
}

// Write writes to the network, or keeps what it is given while the connection is corked.
func (c *corkedConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return c.Conn.Write(b)
	}
	if len(c.buf)+len(b) > corkBytes {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	c.buf = append(c.buf, b...)
	return len(b), nil
}

func (c *corkedConn) flush() error {
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}

func (c *corkedConn) cork() {
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

// uncork writes what was kept, and keeps no memory for the next: an idle listener has none.
func (c *corkedConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	err := c.flush()
	c.buf = nil
	return err
}

// corking hands out a corkedConn for the connection of a request.
type corking struct {
	http.ResponseWriter
	conn *corkedConn
}

// Hijack takes the connection over.
func (w *corking) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.conn = &corkedConn{Conn: conn}
	return w.conn, bufio.NewReadWriter(buffers.Reader, bufio.NewWriterSize(w.conn, socketBuffer)), nil
}

// subscribe serves GET …/subscribe: changes over a WebSocket. The request ends where the connection becomes one: what goes on is two small goroutines.
func (s *Server) subscribe(x *exchange) error {
	q, err := x.openFeed()
	if err != nil {
		return err
	}
	if !isUpgrade(x.r) {
		x.w.Header()["Upgrade"] = []string{"websocket"}
		return newFault(http.StatusUpgradeRequired, "upgrade_required", "This path is a WebSocket", "GET …/changes tells the same over plain HTTP")
	}
	if x.entry == entryMember && x.s.foreignOrigin(x.r) {
		return errCrossSite
	}
	l, r, err := x.join(q)
	if err != nil {
		return err
	}
	// Any origin: a bearer is no cookie. Of cookies the origin was looked at.
	opt := &websocket.AcceptOptions{InsecureSkipVerify: true}
	if p := offered(x.r); p != "" {
		opt.Subprotocols = []string{p}
	}
	x.w.Header()["X-Request-Id"] = []string{x.id}
	w := &corking{ResponseWriter: x.w}
	conn, err := websocket.Accept(w, x.r, opt)
	x.sent = true
	if err != nil { // it was told
		x.status = http.StatusBadRequest
		r.Leave()
		l.leave()
		return nil
	}
	x.status = http.StatusSwitchingProtocols
	conn.SetReadLimit(-1) // read keeps to maxMessage: the library would end the connection with the rest unread, and the reset may overtake the word about why
	k := &socket{l: l, r: r, conn: conn, wire: w.conn, rows: q.rows, said: make(chan clientWord)}
	ping := k.ping
	l.ping.Store(&ping)
	go k.run()
	return nil
}

func isUpgrade(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade")
}

// foreignOrigin tells whether a page of another site opens a WebSocket: browsers send cookies with it all the same.
func (s *Server) foreignOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false // no browser
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return true
	}
	base, err := url.Parse(s.opt.BaseURL)
	return !strings.EqualFold(u.Host, r.Host) && (err != nil || base.Host == "" || loopback(base.Hostname()) || !strings.EqualFold(origin, base.Scheme+"://"+base.Host))
}

// socket is a WebSocket that listens.
type socket struct {
	l    *listener
	r    *feed.Reader
	conn *websocket.Conn
	wire *corkedConn
	rows bool
	said chan clientWord
}

// clientWord is a message of a client that is answered.
type clientWord struct {
	pong   bool
	tables []string
	refuse string // what is wrong with it
}

// run writes until listening ends, by either side.
func (k *socket) run() {
	defer k.l.leave()
	defer k.r.Leave()
	// One who doesn't read must not keep what it has no right to any more.
	defer context.AfterFunc(k.l.ctx, func() { _ = k.wire.SetWriteDeadline(time.Now().Add(closeTime)) })()
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		k.read()
	}()
	err := k.tell()
	k.close(err)
	k.l.end(err)
	<-reading
}

// close ends the connection, with a word about why if the client still listens.
func (k *socket) close(err error) {
	end := endFailed
	var told *feedEnd
	switch {
	case errors.As(err, &told):
		end = told
	case errors.Is(err, feed.ErrBehind):
		end = endSlow
	case errors.Is(err, context.Canceled), errors.Is(err, errUnwritten):
		_ = k.conn.CloseNow()
		return
	}
	late := time.AfterFunc(closeTime, func() { _ = k.wire.Conn.Close() })
	defer late.Stop()
	_ = k.wire.SetWriteDeadline(time.Now().Add(closeTime))
	_ = k.conn.Close(end.code, end.why)
}

var errUnwritten = errors.New("the client doesn't read")

// write sends messages together.
func (k *socket) write(messages ...[]byte) error {
	_ = k.wire.SetWriteDeadline(time.Now().Add(writeTime))
	k.wire.cork()
	var err error
	for _, m := range messages {
		if err = k.conn.Write(context.Background(), websocket.MessageText, m); err != nil {
			break
		}
	}
	if uerr := k.wire.uncork(); err == nil {
		err = uerr
	}
	_ = k.wire.SetWriteDeadline(time.Time{})
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			k.l.s.opt.Feed.Cut()
		}
		return errUnwritten
	}
	return nil
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// tell sends what there is to tell, until there is a reason to end.
func (k *socket) tell() error {
	if err := k.write(k.l.subscribed(k.r.Seen())); err != nil {
		return err
	}
	var messages [][]byte
	for {
		list, resync, news, err := k.r.Next(k.l.ctx)
		if k.l.ctx.Err() != nil {
			return context.Cause(k.l.ctx)
		}
		if err != nil {
			return err
		}
		messages = messages[:0]
		if resync {
			messages = append(messages, resyncMessage)
		}
		if len(list) > 0 {
			if err := k.l.look(); err != nil {
				return err
			}
			k.l.pick(list, k.rows, func(_ int64, m []byte) bool {
				messages = append(messages, m)
				return true
			})
			k.l.s.opt.Feed.Deliver(len(messages))
		}
		if len(messages) > 0 {
			if err := k.write(messages...); err != nil {
				return err
			}
		}
		if len(list) > 0 || resync {
			select {
			case word := <-k.said:
				err = k.answer(word)
			default:
			}
			if err != nil {
				return err
			}
			continue
		}
		messages = nil
		select {
		case <-news:
		case word := <-k.said:
			if err := k.answer(word); err != nil {
				return err
			}
		case <-k.l.ctx.Done():
			return context.Cause(k.l.ctx)
		}
	}
}

func (k *socket) answer(word clientWord) error {
	switch {
	case word.pong:
		return k.write([]byte(`{"type":"pong"}`))
	case word.refuse != "":
		return k.write(errorMessage(word.refuse))
	}
	k.l.setFilter(word.tables)
	return k.write(k.l.subscribed(k.r.Seen()))
}

// read reads what the client says, until it leaves or listening ends.
func (k *socket) read() {
	for {
		// Not under the listener's context: its end would end the connection before it is told why.
		_, r, err := k.conn.Reader(context.Background())
		var b []byte
		if err == nil {
			b, err = io.ReadAll(io.LimitReader(r, maxMessage+1))
		}
		if err != nil {
			k.l.end(context.Canceled)
			return
		}
		if len(b) > maxMessage {
			k.l.end(endTooLong)
			return
		}
		word, ok := parseWord(b)
		if !ok {
			continue
		}
		select {
		case k.said <- word:
		case <-k.l.ctx.Done():
			return
		}
	}
}

// parseWord reads a client's message; what isn't known is ignored.
func parseWord(b []byte) (w clientWord, ok bool) {
	var m struct {
		Type   string          `json:"type"`
		Tables json.RawMessage `json:"tables"`
	}
	if json.Unmarshal(b, &m) != nil {
		return w, false
	}
	switch m.Type {
	case "ping":
		return clientWord{pong: true}, true
	case "set-tables":
		var all string
		if json.Unmarshal(m.Tables, &all) == nil && all == "*" {
			return w, true
		}
		var list []string
		if err := json.Unmarshal(m.Tables, &list); err != nil || list == nil {
			return clientWord{refuse: `tables must be a list of names, or "*"`}, true
		}
		tables, err := filterOf(list)
		if err != nil {
			return clientWord{refuse: err.Error()}, true
		}
		return clientWord{tables: tables}, true
	}
	return w, false
}

// ping looks whether the client is still there.
func (k *socket) ping() {
	ctx, cancel := context.WithTimeout(context.Background(), writeTime)
	defer cancel()
	if err := k.conn.Ping(ctx); err != nil && k.l.ctx.Err() == nil {
		k.l.end(endSilent)
	}
}
