package clientdoc

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/persqld/persqld/internal/outbound"
)

const (
	// keepLeast and keepMost bound how long a document counts, whatever its Cache-Control says; keep is without one.
	keepLeast = time.Minute
	keep      = 15 * time.Minute
	keepMost  = 24 * time.Hour
	// keepStale is how long one counts beyond that while its server doesn't answer.
	keepStale = time.Hour
	// retry is the least time between two look-ups of an address that failed.
	retry = 10 * time.Second

	// FetchTime bounds a look-up, which goes on when who wanted it leaves: others wait for it too.
	FetchTime = 5 * time.Second
	// atOnce is how many look-ups are under way at the same time.
	atOnce = 32

	defaultMost = 1000
)

// ErrUnavailable is returned where a document can't be had now.
var ErrUnavailable = errors.New("the client metadata document can't be had now")

// Getter reads a document of at most limit bytes, from where it may.
type Getter interface {
	GetDocument(ctx context.Context, address string, limit int64) (outbound.Document, error)
}

// Options are New's options.
type Options struct {
	Get    Getter
	Most   int // documents that are kept; 1000 if 0
	Now    func() time.Time
	Logger *slog.Logger
}

// Documents looks documents up, and keeps them for a while. Its methods may be called from any goroutine.
type Documents struct {
	get  Getter
	most int
	now  func() time.Time
	log  *slog.Logger

	mu      sync.Mutex
	entries map[string]*entry
	flights map[string]*flight
}

// entry is what is known of an address.
type entry struct {
	client *Client   // nil where it was refused, or never had
	err    error     // why
	asked  time.Time // when it was looked up last
	until  time.Time // it counts until then
	stale  time.Time // and, while its server doesn't answer, until then; zero where it was refused
}

// last is the moment from which on nothing of an entry counts.
func (e *entry) last() time.Time {
	if e.stale.After(e.until) {
		return e.stale
	}
	return e.until
}

type flight struct {
	done chan struct{}
	e    *entry
}

// New returns Documents.
func New(o Options) *Documents {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Documents{get: o.Get, most: cmp.Or(o.Most, defaultMost), now: o.Now, log: o.Logger, entries: map[string]*entry{}, flights: map[string]*flight{}}
}

// Client is the client of an address. admit is asked before a look-up that nobody else has begun; known tells whether there was a document at the address before, and admit's error
// is returned. It returns ErrDocument with the reason, or ErrUnavailable.
func (d *Documents) Client(ctx context.Context, id string, admit func(known bool) error) (*Client, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	d.mu.Lock()
	now := d.now()
	e := d.entries[id]
	if e != nil && between(now, e.asked, e.until) {
		d.mu.Unlock()
		return e.client, e.err
	}
	f := d.flights[id]
	if f == nil {
		if len(d.flights) >= atOnce {
			d.mu.Unlock()
			return nil, ErrUnavailable
		}
		if err := admit(e != nil && e.client != nil); err != nil {
			d.mu.Unlock()
			return nil, err
		}
		f = &flight{done: make(chan struct{})}
		d.flights[id] = f
		go d.look(id, f)
	}
	d.mu.Unlock()
	select {
	case <-f.done:
		return f.e.client, f.e.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// between tells whether a moment is between two others. A clock that was set back says no.
func between(now, since, until time.Time) bool { return !now.Before(since) && now.Before(until) }

// look looks a document up.
func (d *Documents) look(id string, f *flight) {
	ctx, cancel := context.WithTimeout(context.Background(), FetchTime)
	defer cancel()
	doc, err := d.get.GetDocument(ctx, id, maxDocument)
	var c *Client
	if err == nil {
		c, err = parse(id, doc)
	} else {
		err = reason(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now, former := d.now(), d.entries[id]
	e := &entry{asked: now, until: now.Add(retry)}
	switch {
	case err == nil:
		e.client, e.until = c, now.Add(lifetime(doc.CacheControl))
		e.stale = e.until.Add(keepStale)
	case errors.Is(err, ErrUnavailable) && former != nil && former.client != nil && now.Before(former.stale):
		e.client, e.stale = former.client, former.stale
		d.log.Warn("a client metadata document can't be had; the one before counts on for a while", "client", id, "error", errors.Unwrap(err))
		err = nil
	default:
		// What it is must not be kept (section 4.4 of the draft); that it was asked for is, for a moment, or each request would ask again.
		e.err = err
		d.log.Info("a client metadata document is refused", "client", id, "error", err)
	}
	if unavailable := (*unavailableError)(nil); errors.As(e.err, &unavailable) {
		e.err = ErrUnavailable // where the server may connect to, and what it finds there, is nobody's business who asks
	}
	f.e = e
	d.keep(id, e)
	delete(d.flights, id)
	close(f.done)
}

// keep notes what is known of an address; where that is too much, what ends first is forgotten.
func (d *Documents) keep(id string, e *entry) {
	if _, there := d.entries[id]; !there && len(d.entries) >= d.most {
		now, first := d.now(), ""
		for other, o := range d.entries {
			if !now.Before(o.last()) {
				delete(d.entries, other)
			} else if first == "" || o.last().Before(d.entries[first].last()) {
				first = other
			}
		}
		if len(d.entries) >= d.most {
			delete(d.entries, first)
		}
	}
	d.entries[id] = e
}

// unavailableError is ErrUnavailable with what the log is told.
type unavailableError struct{ err error }

func (e *unavailableError) Error() string   { return ErrUnavailable.Error() + ": " + e.err.Error() }
func (e *unavailableError) Unwrap() error   { return e.err }
func (e *unavailableError) Is(t error) bool { return t == ErrUnavailable }

// reason is what a look-up's failure means.
func reason(err error) error {
	var status *outbound.StatusError
	switch {
	case errors.Is(err, outbound.ErrURL), errors.Is(err, outbound.ErrAddress):
		return refuse("the server may not connect to its address")
	case errors.Is(err, outbound.ErrTooLarge):
		return refuse("it is larger than " + strconv.Itoa(maxDocument) + " bytes")
	case errors.As(err, &status) && status.Status < 500 && status.Status != 429 && status.Status != 408:
		return refuse(status.Error())
	}
	return &unavailableError{err}
}

// lifetime is how long a document counts (RFC 9111, section 5.2.2), within bounds.
func lifetime(cacheControl string) time.Duration {
	life := keep
	for part := range strings.SplitSeq(cacheControl, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return keepLeast
		case "max-age":
			if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				life = time.Duration(seconds) * time.Second
			}
		}
	}
	return min(max(life, keepLeast), keepMost)
}
