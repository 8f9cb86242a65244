package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/feed"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/wire"
)

// The change feed: who listens, what they hear, and when they stop (shared contract, realtime.md "Subscribe"; docs/changes.md).

// The codes by which a WebSocket is closed.
const (
	closeRevoked  websocket.StatusCode = 4401
	closeDeleted  websocket.StatusCode = 4404
	closeStopping                      = websocket.StatusServiceRestart
	closeSlow                          = websocket.StatusTryAgainLater
	closeFailed                        = websocket.StatusInternalError
)

// feedEnd is why listening ends.
type feedEnd struct {
	code websocket.StatusCode
	why  string
}

func (e *feedEnd) Error() string { return e.why }

var (
	endRevoked  = &feedEnd{closeRevoked, "the token was revoked or has expired"}
	endDeleted  = &feedEnd{closeDeleted, "the database was deleted"}
	endStopping = &feedEnd{closeStopping, "the server is stopping"}
	endSlow     = &feedEnd{closeSlow, "too slow: changes were written faster than they were read"}
	endFailed   = &feedEnd{closeFailed, "the server failed"}
	endTooLong  = &feedEnd{websocket.StatusMessageTooBig, "a message of over 64 KB"}
	endSilent   = &feedEnd{websocket.StatusPolicyViolation, "no answer to a ping"}
)

const (
	// lookEvery is how often the rights of all listeners are looked at, and pingEvery how often WebSockets are pinged.
	lookEvery = 400 * time.Millisecond
	pingEvery = 30 * time.Second
	// writeTime is how long a listener may take for what is written to it at a time.
	writeTime = 10 * time.Second
	// maxTables is how many tables a filter names, and maxTableName the longest of their names in bytes.
	maxTables    = 200
	maxTableName = 255
)

// listeners are those who listen, by any of the ways.
type listeners struct {
	mu      sync.Mutex
	all     map[*listener]struct{}
	stopped bool
	looking bool
	ended   sync.WaitGroup
}

// listener is one of them: what let it in, and what it may hear.
type listener struct {
	s        *Server
	entry    entry
	secret   string // the bearer, or the session's cookie
	ns       string // of a member
	role     string
	database *catalog.Database // as it was looked at last; the look's
	token    *catalog.Token

	ctx  context.Context // ends when listening does, with its cause
	end  context.CancelCauseFunc
	ping atomic.Pointer[func()] // nil where there is none, and until the socket is there: others look at listeners meanwhile
	due  time.Time

	looked sync.Mutex // held by who looks

	mu     sync.Mutex
	rights rights
	filter map[string]bool // folded names; nil is all
	names  []string        // of the filter, as they were asked for
}

// rights are what a listener may hear of, whatever it asks for.
type rights struct {
	caller gate.Caller
	scope  []string // the token's tables, nil for all
}

// setFilter sets the tables; nil is all.
func (l *listener) setFilter(tables []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.filter, l.names = nil, nil
	if tables == nil {
		return
	}
	l.filter = map[string]bool{}
	for _, t := range tables {
		if folded := sqlite.Fold(t); !l.filter[folded] {
			l.filter[folded] = true
			l.names = append(l.names, t)
		}
	}
}

// subscribed is the message that says what is heard from here on.
func (l *listener) subscribed(seq int64) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := []byte(`{"type":"subscribed","tables":`)
	names, all := l.names, l.filter == nil
	if all && l.rights.scope != nil {
		names, all = l.rights.scope, false
	}
	if all {
		b = append(b, `"*"`...)
	} else {
		heard := []string{}
		for _, n := range names {
			if l.rights.caller.Sees(n) && !l.rights.caller.Policies.Has(n) {
				heard = append(heard, n)
			}
		}
		b = appendNames(b, heard)
	}
	b = append(b, `,"seq":`...)
	b = strconv.AppendInt(b, seq, 10)
	return append(b, '}')
}

var resyncMessage = []byte(`{"type":"error","code":"resync","message":"Changes are missing before this: read the tables again"}`)

func errorMessage(text string) []byte {
	return append(wire.AppendString([]byte(`{"type":"error","message":`), text), '}')
}

// listen makes a listener of a request that was let in.
func (x *exchange) listen(tables []string) (*listener, error) {
	l := &listener{s: x.s, entry: x.entry, database: x.database, token: x.token, due: x.s.opt.Now().Add(pingEvery)}
	switch x.entry {
	case entryMember:
		cookie, err := x.r.Cookie(cookieName)
		if err != nil {
			return nil, errSignedOut
		}
		l.secret, l.ns, l.role = cookie.Value, unescape(x.param("ns")), x.membership.Role
	default:
		l.secret = listenerOf(x.r)
	}
	l.rights = x.rights()
	l.setFilter(tables)
	l.ctx, l.end = context.WithCancelCause(context.Background())
	s := &x.s.listening
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, newFault(http.StatusServiceUnavailable, "shutting_down", "The server is shutting down", "")
	}
	if s.all == nil {
		s.all = map[*listener]struct{}{}
	}
	s.all[l] = struct{}{}
	s.ended.Add(1)
	if !s.looking {
		s.looking = true
		go x.s.look()
	}
	return l, nil
}

func (x *exchange) rights() rights {
	r := rights{caller: x.caller()}
	if x.token.TableScope != nil {
		r.scope = x.token.TableScope
	}
	return r
}

// leave ends a listener.
func (l *listener) leave() {
	l.end(context.Canceled)
	s := &l.s.listening
	s.mu.Lock()
	delete(s.all, l)
	s.mu.Unlock()
	s.ended.Done()
}

// look looks at the rights of all listeners again and again, as long as there are any.
func (s *Server) look() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for range tick.C {
		s.listening.mu.Lock()
		all := make([]*listener, 0, len(s.listening.all))
		for l := range s.listening.all {
			all = append(all, l)
		}
		if len(all) == 0 {
			s.listening.looking = false
			s.listening.mu.Unlock()
			return
		}
		s.listening.mu.Unlock()
		now := s.opt.Now()
		for _, l := range all {
			if err := l.look(); err != nil {
				l.end(err)
			} else if ping := l.ping.Load(); ping != nil && !now.Before(l.due) {
				l.due = now.Add(pingEvery)
				go (*ping)()
			}
		}
	}
}

// look tells why the listener is to be ended; nil if it may go on. What it may hear follows the catalog.
func (l *listener) look() error {
	l.looked.Lock()
	defer l.looked.Unlock()
	token := l.token
	if l.entry == entryMember {
		_, user, err := l.s.opt.Catalog.AuthenticateSession(l.secret)
		if err != nil {
			return endRevoked
		}
		m, err := l.s.opt.Catalog.Membership(l.ns, user.ID)
		if err != nil || m.Role != l.role {
			return endRevoked
		}
	} else {
		var err error
		if token, err = l.s.opt.Catalog.Authenticate(l.secret); err != nil {
			return endRevoked
		}
	}
	d, err := l.s.opt.Catalog.DatabaseByID(l.database.ID)
	if err != nil || d.Expired(l.s.opt.Now()) {
		return endDeleted
	}
	if d == l.database && token == l.token {
		return nil
	}
	l.database, l.token = d, token
	x := exchange{s: l.s, token: token, database: d}
	r := x.rights()
	l.mu.Lock()
	l.rights = r
	l.mu.Unlock()
	return nil
}

// EndFeeds ends all who listen, and waits until they are gone or ctx ends. Nobody may listen from here on.
func (s *Server) EndFeeds(ctx context.Context) {
	l := &s.listening
	l.mu.Lock()
	l.stopped = true
	for one := range l.all {
		one.end(endStopping)
	}
	l.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		l.ended.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

// bearerProtocol begins the subprotocol by which a browser's WebSocket brings its token.
const bearerProtocol = "persql.bearer."

// offered is the subprotocol with a token in it; "" if there is none.
func offered(r *http.Request) string {
	for _, h := range r.Header["Sec-Websocket-Protocol"] {
		for p := range strings.SplitSeq(h, ",") {
			if p = strings.TrimSpace(p); strings.HasPrefix(p, bearerProtocol) {
				return p
			}
		}
	}
	return ""
}

// listenerOf is the token of a request that listens: browsers can't set a header on it.
func listenerOf(r *http.Request) string {
	if token := bearerOf(r); token != "" {
		return token
	}
	if p := offered(r); p != "" {
		return p[len(bearerProtocol):]
	}
	return r.URL.Query().Get("token")
}

// feedQuery is what a request asks for.
type feedQuery struct {
	tables []string
	since  int64 // feed.Now for none
	rows   bool
	wait   time.Duration
	limit  int
}

const (
	maxPoll = 25 * time.Second
	maxList = 10_000
)

func (x *exchange) feedQuery() (q feedQuery, err error) {
	bad := func(message, hint string) (feedQuery, error) {
		return q, newFault(http.StatusBadRequest, codeBadRequest, message, hint)
	}
	v := x.r.URL.Query()
	q.since, q.wait = feed.Now, maxPoll
	if list := v.Get("tables"); list != "" && list != "*" {
		if q.tables, err = filterOf(strings.Split(list, ",")); err != nil {
			return q, err
		}
	}
	since := v.Get("since")
	if since == "" {
		since = x.r.Header.Get("Last-Event-ID") // of an EventSource that comes back (HTML standard, section 9.2)
	}
	if since != "" {
		if q.since, err = strconv.ParseInt(since, 10, 64); err != nil || q.since < 0 {
			return bad("since must be a whole number: the seq of a change, or a cursor", "")
		}
	}
	switch v.Get("rows") {
	case "", "0", "false":
	case "1", "true":
		q.rows = true
	default:
		return bad("rows must be 0 or 1", "")
	}
	if wait := v.Get("wait"); wait != "" {
		n, err := strconv.Atoi(wait)
		if err != nil || n < 0 || n > int(maxPoll/time.Second) {
			return bad("wait must be a whole number of seconds from 0 to 25", "")
		}
		q.wait = time.Duration(n) * time.Second
	}
	q.limit, err = x.limit(1000, maxList)
	return q, err
}

// filterOf are the tables of a filter; nil for all.
func filterOf(tables []string) ([]string, error) {
	list := []string{}
	for _, t := range tables {
		if t = strings.TrimSpace(t); t == "*" {
			return nil, nil
		}
		if t == "" || len(t) > maxTableName {
			return nil, newFault(http.StatusBadRequest, codeBadRequest, "tables are names of tables, each of 1 to 255 bytes", "leave it out for all of them")
		}
		list = append(list, t)
	}
	if len(list) > maxTables {
		return nil, newFault(http.StatusBadRequest, codeBadRequest, "tables are at most 200 names", "leave it out for all of them")
	}
	return list, nil
}

// pick hands on the messages of a list that the listener hears, until take has enough. One that policies bind hears nothing of the tables that have any: its rows are
// not looked at again. Who calls it has looked at the rights since the changes were committed.
func (l *listener) pick(list []*feed.Messages, rows bool, take func(seq int64, message []byte) bool) {
	l.mu.Lock()
	filter, caller := l.filter, l.rights.caller
	l.mu.Unlock()
	known := map[string]bool{}
	for _, m := range list {
		for i := range m.List {
			e := &m.List[i]
			hears, ok := known[e.Table]
			if !ok {
				hears = (filter == nil || filter[e.Table]) && caller.Sees(e.Table) && !caller.Policies.Has(e.Table)
				known[e.Table] = hears
			}
			if !hears {
				continue
			}
			b := e.JSON
			if rows {
				b = m.WithRows(i)
			}
			if !take(e.Seq, b) {
				return
			}
		}
	}
}

// openFeed finds the database, and what is asked of it.
func (x *exchange) openFeed() (q feedQuery, err error) {
	if x.s.opt.Feed == nil {
		return q, newFault(http.StatusNotFound, codeNotFound, "The server has no change feed", "")
	}
	if q, err = x.feedQuery(); err != nil {
		return q, err
	}
	return q, x.openDatabase(false)
}

// join begins to listen. Both are to be left.
func (x *exchange) join(q feedQuery) (*listener, *feed.Reader, error) {
	l, err := x.listen(q.tables)
	if err != nil {
		return nil, nil, err
	}
	r, err := x.s.opt.Feed.Join(x.r.Context(), x.database.ID, q.since, q.rows)
	if err != nil {
		l.leave()
		return nil, nil, err
	}
	return l, r, nil
}

// faultOfEnd is what a request is answered with that ends before its time.
func faultOfEnd(err error) error {
	switch {
	case errors.Is(err, endRevoked):
		return catalog.ErrTokenUnknown
	case errors.Is(err, endDeleted):
		return catalog.ErrDatabaseNotFound
	case errors.Is(err, endStopping):
		return newFault(http.StatusServiceUnavailable, "shutting_down", "The server is shutting down", "")
	}
	return err
}

// changes serves GET …/changes: what changed behind a cursor, as soon as there is something.
func (s *Server) changes(x *exchange) error {
	if wantsEvents(x.r) {
		return s.events(x)
	}
	q, err := x.openFeed()
	if err != nil {
		return err
	}
	l, r, err := x.join(q)
	if err != nil {
		return err
	}
	defer l.leave()
	defer r.Leave()
	ctx, cancel := context.WithTimeout(x.r.Context(), q.wait)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	resync, more, count := false, false, 0
	cursor := r.Seen()
	x.success()
	x.out = append(x.out, `{"changes":[`...)
	for count == 0 && !resync && !more {
		list, missed, news, err := r.Next(x.r.Context())
		if errors.Is(err, feed.ErrBehind) {
			more = true // the next call reads it from the journal
			break
		}
		if err == nil {
			err = l.look()
		}
		if err != nil {
			return faultOfEnd(err)
		}
		resync = missed
		end := r.Seen()
		l.pick(list, q.rows, func(seq int64, message []byte) bool {
			if more = count == q.limit || count > 0 && int64(len(x.out)+len(message)) > s.opt.MaxResult; more {
				return false
			}
			if count > 0 {
				x.out = append(x.out, ',')
			}
			x.out = append(x.out, message...)
			count++
			cursor = seq
			err = x.charge(len(x.out))
			return err == nil
		})
		if err != nil {
			return err
		}
		if !more {
			cursor = end
		}
		if count > 0 || resync || len(list) > 0 {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		select {
		case <-news:
		case <-ctx.Done():
		}
		if l.ctx.Err() != nil {
			return faultOfEnd(context.Cause(l.ctx))
		}
		if x.r.Context().Err() != nil {
			return x.r.Context().Err()
		}
	}
	s.opt.Feed.Deliver(count)
	x.out = append(x.out, `],"cursor":`...)
	x.out = strconv.AppendInt(x.out, cursor, 10)
	x.out = append(x.out, `,"resync":`...)
	x.out = strconv.AppendBool(x.out, resync)
	x.out = append(x.out, `,"more":`...)
	x.out = strconv.AppendBool(x.out, more)
	x.out = append(x.out, `}}`...)
	return nil
}

// wantsEvents tells whether a request asks for Server-Sent Events.
func wantsEvents(r *http.Request) bool {
	return slices.ContainsFunc(r.Header["Accept"], func(h string) bool { return strings.Contains(strings.ToLower(h), "text/event-stream") })
}
