package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// exchange is one request and its answer, with the memory that both need. Exchanges are used again: a point query
// allocates next to nothing of ours.
type exchange struct {
	s  *Server
	w  http.ResponseWriter
	r  *http.Request
	id string // the request's id

	path     pathParts // where the router did not look; see shortcut
	token    *catalog.Token
	database *catalog.Database

	user       *catalog.User // who is signed in; nil where a token is what counts
	session    *catalog.Session
	membership catalog.Membership

	body  []byte
	out   []byte // the answer
	parts []byte // results of a batch, while it runs
	one   wire.Query
	many  wire.Batch

	tab     tab
	gate    gate.Gate
	request store.Request
	status  int // of the answer, if it isn't 200
	run     run
	key     idempotency

	engine  time.Duration
	came    time.Time
	charged int64 // bytes of the budget
	sent    bool  // the handler has sent the answer itself
	entry   entry // how it came in
	hurried bool  // the body has a deadline
	waited  bool  // the body did not come with its header
	reckons bool  // its failure tells what its statements cost
	lent    bool  // an abandoned statement still uses the exchange's memory

	call     heldCall          // what is kept of the request, if a rule stops it
	permit   store.Permit      // what it uses up
	pass     approval.Pass     // what an approval lets through
	redeemed *catalog.Approval // the approval that the request runs
	approved heldRequest       // what that one keeps
	asked    *catalog.Approval // whose schema must still be the database's; nil for none
	proposal *catalog.Proposal // that the request applies
	thrift   *thrift           // bounds what runs more than the balance does; nil for no more
	heldAs   string            // id of the approval that it waits for
	unruled  bool              // what runs is no write: rules aren't asked
	leads    string            // where the form of the page leads on to, beyond this server
}

const (
	keepBuffer = 1 << 20 // bytes of a buffer that an exchange keeps for its next use
	keepParsed = 1 << 20
)

func newExchange(s *Server) *exchange {
	x := &exchange{s: s, body: make([]byte, 0, 1024), out: make([]byte, 0, 2048)}
	x.run.x = x
	return x
}

func (s *Server) take(w http.ResponseWriter, r *http.Request) *exchange {
	x := s.exchanges.Get().(*exchange)
	x.w, x.r = w, r
	x.status = http.StatusOK
	x.id = requestID(r)
	return x
}

func (s *Server) give(x *exchange) {
	x.refund()
	if x.lent {
		return // for the collector, when the engine is done with it
	}
	if cap(x.body) > keepBuffer {
		x.body = nil
	}
	if cap(x.out) > keepBuffer {
		x.out = nil
	}
	if cap(x.parts) > keepBuffer {
		x.parts = nil
	}
	if x.one.Footprint() > keepParsed {
		x.one = wire.Query{}
	}
	if x.many.Footprint() > keepParsed {
		x.many = wire.Batch{}
	}
	x.w, x.r, x.token, x.database = nil, nil, nil, nil
	x.user, x.session, x.membership = nil, nil, catalog.Membership{}
	x.id, x.path = "", pathParts{}
	x.body, x.out, x.parts = x.body[:0], x.out[:0], x.parts[:0]
	x.request = store.Request{}
	x.gate = gate.Gate{}
	x.key = idempotency{}
	x.tab = tab{}
	x.engine, x.hurried, x.waited, x.sent, x.reckons = 0, false, false, false, false
	x.call, x.permit, x.pass, x.redeemed, x.approved, x.asked, x.unruled = heldCall{}, store.Permit{}, nil, nil, heldRequest{}, nil, false
	x.proposal, x.thrift, x.heldAs, x.leads = nil, nil, "", ""
	x.run.reset()
	s.exchanges.Put(x)
}

// call is the way of every request in and out: id, address, token or cookie, handler, answer, metrics.
func (s *Server) call(pattern string, by entry, h handler) *endpoint {
	return &endpoint{s: s, metric: s.opt.Metrics.route(pattern), entry: by, handler: h}
}

type endpoint struct {
	s       *Server
	metric  *route
	entry   entry
	paid    bool // it is counted, and refused where nothing is left
	handler handler
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.serve(w, r, nil) }

// serve answers a request whose path has these parts, or those that the router found.
func (e *endpoint) serve(w http.ResponseWriter, r *http.Request, parts *pathParts) {
	s := e.s
	start := s.opt.Now()
	x := s.take(w, r)
	x.came = start
	if parts != nil {
		x.path = *parts
	}
	status := statusClientGone // of an answer that is broken off
	defer func() {
		e.metric.done(status, s.opt.Now().Sub(start))
		s.give(x)
	}()
	status = x.answer(x.handle(e.entry, e.paid, e.handler))
}

func (x *exchange) handle(by entry, paid bool, h handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			x.s.log.Error("a handler failed", "panic", fmt.Sprint(p), "requestId", x.id, "stack", string(debug.Stack()))
			x.out = x.out[:0]
			err = newFault(http.StatusInternalServerError, "internal", "The server failed on this request", "")
		}
	}()
	if x.s.opt.ForeignHost != nil {
		x.s.noticeHost(x.r.Host)
	}
	if x.r.Header["Origin"] != nil && openPath(x.r.URL.Path) {
		crossOrigin(x.w.Header())
	}
	x.entry = by
	if by == entryOpen {
		return h(x)
	}
	if err := x.s.flood.admit(x); err != nil {
		return err
	}
	switch by {
	default:
		err = x.enter(by)
	case entryListener:
		x.token, err = x.s.opt.Catalog.Authenticate(listenerOf(x.r))
	case entryBearer:
		x.token, err = x.s.opt.Catalog.Authenticate(bearerOf(x.r))
	}
	if err == nil && paid {
		err = x.bill()
	}
	if err != nil {
		return err
	}
	return x.held(h(x))
}

// bearerOf is the token of the Authorization header, or "" (RFC 6750, section 2.1; the scheme's case doesn't matter).
func bearerOf(r *http.Request) string {
	h := r.Header["Authorization"]
	if len(h) != 1 {
		return ""
	}
	const scheme = "bearer "
	if len(h[0]) <= len(scheme) || !strings.EqualFold(h[0][:len(scheme)], scheme) {
		return ""
	}
	return strings.TrimSpace(h[0][len(scheme):])
}

// ownLength is from where on net/http doesn't count the bytes of an answer itself.
const ownLength = 2048

// dateHeader keeps the Date of the running second (RFC 9110, section 6.6.1), which net/http would write anew each time.
type dateHeader struct{ last atomic.Pointer[dated] }

type dated struct {
	second int64
	value  []string
}

func (d *dateHeader) at(t time.Time) []string {
	second := t.Unix()
	if last := d.last.Load(); last != nil && last.second == second {
		return last.value
	}
	now := &dated{second, []string{t.UTC().Format(http.TimeFormat)}}
	d.last.Store(now)
	return now.value
}

var (
	jsonType        = []string{"application/json"}
	bearerChallenge = []string{"Bearer"}
)

// answer sends what the handler wrote, or the failure, and returns the status.
func (x *exchange) answer(err error) int {
	if x.sent {
		x.settle(x.status)
		return x.status
	}
	h := x.w.Header()
	out, gone := x.out, false
	if err != nil {
		if errors.Is(err, store.ErrAbandoned) {
			x.lent = true
			out = nil // the engine may still write there
		}
		f := x.s.faultOf(err)
		x.status = f.status
		if gone = f.status == statusClientGone; gone {
			// It may have closed only its own direction, and read on.
			x.status = http.StatusBadRequest
			h["Connection"] = []string{"close"}
		}
		if f.status == http.StatusUnauthorized {
			h["Www-Authenticate"] = bearerChallenge
			if strings.HasPrefix(x.r.URL.Path, "/api/") {
				h["Www-Authenticate"] = cookieChallenge
			}
		}
		if f.retry > 0 {
			h["Retry-After"] = retryAfter(f.retry)
		}
		if f.status == http.StatusMethodNotAllowed {
			h["Allow"] = []string{x.s.allowed(x.r)}
		}
		var completed []byte
		if f.atomic {
			completed = []byte{}
		}
		out = x.appendFault(out[:0], f, completed)
		if x.tab.worked && x.reckons && !x.tab.unworked(f.status) && f.status != http.StatusTooManyRequests && f.status < http.StatusInternalServerError && !x.lent {
			out = x.appendSpent(out, x.tab.spent)
		}
		if !x.lent {
			x.out = out
		}
	}
	if gone {
		x.settle(statusClientGone)
	} else {
		x.settle(x.status)
	}
	h["Content-Type"] = jsonType
	h["X-Request-Id"] = []string{x.id}
	h["Date"] = x.s.date.at(x.came.Add(x.request.Stats.Wait + x.request.Stats.Engine + x.request.Stats.Parked))
	if len(out) >= ownLength {
		h["Content-Length"] = []string{strconv.Itoa(len(out))}
	}
	if len(out) > freeBuffer {
		// A client that doesn't read what it asked for must not keep the memory of it.
		control := http.NewResponseController(x.w)
		_ = control.SetWriteDeadline(time.Now().Add(bodyTime + time.Duration(len(out))*time.Second/bodyRate))
		defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	}
	if x.status != http.StatusOK {
		x.w.WriteHeader(x.status)
	}
	// A client that left is no failure of ours, and there is nobody to tell.
	_, _ = x.w.Write(out)
	if err != nil && x.r.Body != http.NoBody && !x.lent {
		x.discard()
	}
	if gone {
		return statusClientGone
	}
	return x.status
}

const (
	discardBytes = 64_000_000
	discardTime  = 5 * time.Second
)

// discard reads what the client still sends, for a while: many send all of a request before they read the answer, and
// would find a reset connection in its place.
func (x *exchange) discard() {
	if x.r.Header["Expect"] != nil {
		return // it waits for our word before it sends
	}
	control := http.NewResponseController(x.w)
	if control.Flush() != nil || control.SetReadDeadline(time.Now().Add(discardTime)) != nil {
		return
	}
	_, err := io.CopyN(io.Discard, x.r.Body, discardBytes)
	if err == io.EOF { // all of it: the connection can be used again
		_ = control.SetReadDeadline(time.Time{})
	}
}

// requestID is the client's own id of the request, if it is one that can be repeated safely, else a new one.
func requestID(r *http.Request) string {
	if h := r.Header["X-Request-Id"]; len(h) == 1 && validRequestID(h[0]) {
		return h[0]
	}
	// It tells requests apart and guards nothing: no need for secret randomness.
	const digits = "0123456789abcdefghijklmnopqrstuv"
	text := [16]byte{'r', 'e', 'q', '_'}
	n := rand.Uint64()
	for i := 4; i < len(text); i++ {
		text[i] = digits[n&31]
		n >>= 5
	}
	return string(text[:])
}

func validRequestID(id string) bool {
	if len(id) < 1 || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' && c != ':' {
			return false
		}
	}
	return true
}

// readBody reads the request's body, up to the limit of all calls.
func (x *exchange) readBody() error { return x.readUpTo(x.s.opt.MaxRequest) }

// readUpTo reads the request's body, up to a limit of bytes. Where that took a while, who sent it must still be let in: else a body
// that is held back would keep a right that was taken meanwhile, for minutes.
func (x *exchange) readUpTo(limit int64) error {
	if x.redeemed != nil {
		return nil // what was approved is the body
	}
	if err := x.receive(limit); err != nil || !x.waited {
		return err
	}
	return x.enterAgain()
}

func (x *exchange) receive(limit int64) error {
	n := x.r.ContentLength
	if n > limit {
		return tooLarge(limit)
	}
	if err := x.charge(int(bodyFactor * n)); err != nil {
		return err
	}
	body := x.body[:0]
	if n >= 0 {
		if int64(cap(body)) < n {
			// A length is a promise: memory is given for what has come, not for what was announced.
			body = make([]byte, 0, min(n, keepBuffer))
		}
		for int64(len(body)) < n {
			if len(body) == cap(body) {
				bigger := make([]byte, len(body), min(n, int64(2*cap(body))))
				copy(bigger, body)
				body = bigger
			}
			got, err := x.r.Body.Read(body[len(body):min(int64(cap(body)), n)])
			body = body[:len(body)+got]
			if int64(len(body)) == n {
				break
			}
			if err != nil {
				return x.bodyError(err)
			}
			x.hurry(n)
		}
		x.unhurry()
		x.body = body
		return nil
	}
	x.hurry(limit)
	for {
		if len(body) == cap(body) {
			if err := x.charge(bodyFactor * 5 / 4 * cap(body)); err != nil {
				return err
			}
			body = append(body, 0)[:len(body)]
		}
		got, err := x.r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+got]
		if int64(len(body)) > limit {
			return tooLarge(limit)
		}
		if err == io.EOF {
			x.unhurry()
			x.body = body
			return nil
		}
		if err != nil {
			return x.bodyError(err)
		}
	}
}

const (
	bodyTime = 30 * time.Second // that a body may take, however small it is,
	bodyRate = 50_000           // and bytes a second at the least beyond that
)

// hurry bounds the time that the rest of a body of at most n bytes may take. A body that came with its header, as nearly
// all do, costs no timer.
func (x *exchange) hurry(n int64) {
	if x.hurried {
		return
	}
	x.hurried, x.waited = true, true
	// A connection that takes no deadline (a test's) is bounded by whoever made it.
	_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(bodyTime + time.Duration(n)*time.Second/bodyRate))
}

func (x *exchange) unhurry() {
	if x.hurried {
		x.hurried = false
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Time{})
	}
}

func (x *exchange) bodyError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return newFault(http.StatusRequestTimeout, "request_timeout", "The request's body came too slowly", fmt.Sprintf("a body has %s and a second for each %d bytes", bodyTime, bodyRate))
	}
	if x.r.Context().Err() != nil {
		return context.Canceled
	}
	return newFault(http.StatusBadRequest, codeBadRequest, "The request's body ended early", "")
}

func tooLarge(limit int64) error {
	return newFault(http.StatusRequestEntityTooLarge, "request_too_large", fmt.Sprintf("The request is larger than the limit of %d bytes", limit), "send less at a time, for example smaller batches")
}

// object reads a body of a call that isn't hot.
func (x *exchange) object(v any) error {
	if err := x.readBody(); err != nil {
		return err
	}
	return wire.DecodeObject(x.body, v)
}

// success begins the answer's envelope; the caller appends the data and a brace.
func (x *exchange) success() { x.out = append(x.out[:0], `{"success":true,"data":`...) }

// param is a part of the path.
func (x *exchange) param(name string) string {
	if v, ok := x.approved.Params[name]; ok {
		return v
	}
	if x.path != (pathParts{}) {
		if name == "ns" {
			return x.path.namespace
		}
		return x.path.database
	}
	return chi.URLParam(x.r, name)
}

// limit reads how many entries of a list are asked for, from 1 to most.
func (x *exchange) limit(standard, most int) (int, error) {
	v := x.r.URL.Query().Get("limit")
	if v == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > most {
		return 0, newFault(http.StatusBadRequest, codeBadRequest, "limit must be a whole number from 1 to "+strconv.Itoa(most), "")
	}
	return n, nil
}

// do runs a job on the request's database.
func (x *exchange) do(job store.Job) error { return x.doBy(&x.gate, job) }

// doBy is do with a gate that stands before the request's.
func (x *exchange) doBy(g store.Gate, job store.Job) error {
	x.gate.Caller = x.caller()
	x.gate.Rules, x.gate.Pass, x.gate.Seen = x.rulesOf(x.database), x.pass, nil
	if x.asked != nil {
		x.gate.Seen = x.asked.Counts
	}
	x.request.Gate, x.request.Job, x.request.Namespace, x.request.Came = g, job, x.token.NamespaceID, x.came
	if err := x.onTab(&x.request); err != nil {
		return err
	}
	if x.thrift != nil {
		x.thrift.budget, x.request.Budget = x.request.Budget, x.thrift
	}
	ctx := x.r.Context()
	owner, err := x.s.opt.Placement.Owner(ctx, x.database.ID)
	if err != nil {
		return err
	}
	err = owner.Do(ctx, x.database.ID, &x.request)
	if errors.Is(err, store.ErrAbandoned) {
		x.lent = true
		return err
	}
	x.engine = x.request.Stats.Engine
	x.tab.ran(&x.request)
	return err
}
