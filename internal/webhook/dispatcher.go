package webhook

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/feed"
	"github.com/persqld/persqld/internal/outbound"
)

// Options says how a Dispatcher works. The zero value of a field is the default that stands beside it.
type Options struct {
	Catalog    *catalog.Catalog
	Hub        *feed.Hub
	Networks   outbound.Networks
	BaseURL    string            // the server's public origin, for links in messages
	Version    string            // of the program
	Timeout    time.Duration     // of an attempt; 15 s
	RetryFor   time.Duration     // how long a message is tried before it is parked; 24 h
	AtOnce     int               // attempts at the same time; 256
	Keep       int               // messages that were delivered, a webhook, for the log; 100
	KeepParked int               // messages that are parked, a webhook; 1,000
	Way        http.RoundTripper // instead of the network, for tests
	Now        func() time.Time
	Logger     *slog.Logger
}

const (
	// lookEvery is how often the catalog is looked at for what has changed, and for whom it is time to be tried again.
	lookEvery = 200 * time.Millisecond
	// saveEvery is how often what was delivered is written down: so much is told again after a crash.
	saveEvery = time.Second
	// firstBackoff is the wait after a first failure; each one after it is twice as long, up to maxBackoff. Up to half of it is left out at random.
	firstBackoff = time.Second
	maxBackoff   = time.Hour
	// doubtfulShare is which part of the places receivers may have that failed last, or took longer than slowAnswer: one that hangs takes nobody's place but theirs. So many places
	// of either kind a namespace may have, too.
	doubtfulShare = 4
	slowAnswer    = time.Second
	// turnTime is how long a webhook has its place, and turnCommits how many commits and waiting messages are read at a time. An attempt that is under way ends in it.
	turnTime    = time.Second
	turnCommits = 32
	// readers is how many databases are opened at the same time, to read what is to be told.
	readers = 32
	// maxUnsaved is how many finished messages wait to be written down where the catalog takes none.
	maxUnsaved = 100_000
)

// Dispatcher tells webhooks.
type Dispatcher struct {
	opt     Options
	sender  *sender
	all     places            // of all namespaces
	of      map[string]places // of one; guarded by mu
	reading chan struct{}
	ctx     context.Context
	wg      sync.WaitGroup

	mu       sync.Mutex
	hooks    map[string]*hook
	watched  map[string]bool // databases
	dirty    map[*hook]struct{}
	finished []catalog.FinishedDelivery

	delivered, failed, parked, turns atomic.Uint64
}

// New returns a Dispatcher, which does nothing before Run.
func New(opt Options) *Dispatcher {
	number := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	number(&opt.AtOnce, 256)
	number(&opt.Keep, 100)
	number(&opt.KeepParked, 1000)
	if opt.Timeout <= 0 {
		opt.Timeout = 15 * time.Second
	}
	if opt.RetryFor <= 0 {
		opt.RetryFor = 24 * time.Hour
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Dispatcher{
		opt: opt, sender: newSender(opt.Networks, opt.Timeout, opt.Version),
		all: newPlaces(opt.AtOnce), of: map[string]places{}, reading: make(chan struct{}, readers),
		hooks: map[string]*hook{}, watched: map[string]bool{}, dirty: map[*hook]struct{}{},
	}
	if opt.Way != nil {
		d.sender.client.Transport = opt.Way
	}
	return d
}

// places are who may make attempts at the same time.
type places struct {
	good  chan struct{} // whose last attempt succeeded, and was quick
	doubt chan struct{} // the others
}

func newPlaces(n int) places {
	return places{make(chan struct{}, n), make(chan struct{}, max(1, n/doubtfulShare))}
}

// enter waits for a place: first among those of the namespace, so that one which waits there keeps no other namespace's.
func (d *Dispatcher) enter(ctx context.Context, namespaceID string, doubtful bool) (leave func(), err error) {
	d.mu.Lock()
	own, ok := d.of[namespaceID]
	if !ok {
		own = newPlaces(max(1, d.opt.AtOnce/doubtfulShare))
		d.of[namespaceID] = own
	}
	d.mu.Unlock()
	mine, all := own.good, d.all.good
	if doubtful {
		mine, all = own.doubt, d.all.doubt
	}
	select {
	case mine <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case all <- struct{}{}:
	case <-ctx.Done():
		<-mine
		return nil, ctx.Err()
	}
	return func() {
		<-all
		<-mine
	}, nil
}

// post makes one attempt at a message.
func (d *Dispatcher) post(ctx context.Context, w *catalog.Webhook, of *catalog.Database, m *catalog.Delivery) (o outcome, err error) {
	ns, err := d.opt.Catalog.NamespaceByID(of.NamespaceID)
	if err != nil {
		return o, errEnded
	}
	body, err := Body(m, ns.Slug+":"+of.Slug, d.opt.BaseURL)
	if err != nil {
		return o, err
	}
	now := d.opt.Now()
	secrets, err := d.opt.Catalog.WebhookSecrets(w)
	if err != nil {
		return outcome{reason: catalog.ErrSealed.Error() + "; POST …/rotate-secret makes another one"}, nil
	}
	signature, err := signatures(secrets, m.ID, now, body)
	if err != nil {
		return o, err
	}
	if o = d.sender.post(ctx, w.URL, m.ID, now, signature, body); ctx.Err() != nil {
		return o, ctx.Err() // the server stops: nothing is known of this attempt
	}
	return o, nil
}

var errChanged = errors.New("the webhook was changed meanwhile")

// gone disables a webhook whose receiver says that it is no more (RFC 9110, section 15.5.11; Standard Webhooks, "Disabling endpoints"), unless it has another one by now.
func (d *Dispatcher) gone(ctx context.Context, w *catalog.Webhook) {
	_, err := d.opt.Catalog.UpdateWebhook(ctx, w.DatabaseID, w.ID, func(now *catalog.Webhook) error {
		if now.URL != w.URL || !now.BegunAt.Equal(w.BegunAt) {
			return errChanged
		}
		now.Enabled = false
		return nil
	}, -1)
	switch {
	case errors.Is(err, errChanged):
	case err != nil:
		d.opt.Logger.Warn("a webhook whose receiver is gone could not be disabled", "webhook", w.ID, "error", err)
	default:
		d.opt.Logger.Warn("a webhook's receiver answered 410: the webhook is disabled", "webhook", w.ID, "database", w.DatabaseID)
	}
}

// Delivered, Failed and Parked count messages that were taken, attempts that failed, and messages that were given up.
func (d *Dispatcher) Delivered() uint64 { return d.delivered.Load() }

// Failed counts attempts that failed.
func (d *Dispatcher) Failed() uint64 { return d.failed.Load() }

// Parked counts messages that were given up.
func (d *Dispatcher) Parked() uint64 { return d.parked.Load() }

// Failing is how many webhooks failed at the last attempt.
func (d *Dispatcher) Failing() int {
	n := 0
	for _, h := range d.list() {
		h.mu.Lock()
		if h.progress.Failures > 0 {
			n++
		}
		h.mu.Unlock()
	}
	return n
}

func (d *Dispatcher) list() []*hook {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]*hook, 0, len(d.hooks))
	for _, h := range d.hooks {
		list = append(list, h)
	}
	return list
}

// Run tells webhooks until ctx ends, and writes down then what it has told. An attempt that is under way is given up: it is made again after the next start.
func (d *Dispatcher) Run(ctx context.Context) {
	d.ctx = ctx
	look, save := time.NewTicker(lookEvery), time.NewTicker(saveEvery)
	defer look.Stop()
	defer save.Stop()
	first, version := true, uint64(0)
	for ctx.Err() == nil {
		if v := d.opt.Catalog.Version(); first || v != version {
			if err := d.reconcile(ctx); err != nil {
				if ctx.Err() == nil {
					d.opt.Logger.Error("read webhooks; it is tried again", "error", err)
				}
			} else {
				first, version = false, v
			}
		}
		now := d.opt.Now()
		for _, h := range d.list() {
			h.retry(now)
		}
		select {
		case <-ctx.Done():
		case <-look.C:
		case <-save.C:
			d.save(ctx)
		}
	}
	d.mu.Lock()
	for id := range d.watched {
		d.opt.Hub.Watch(id, nil)
	}
	d.mu.Unlock()
	for _, h := range d.list() { // from here on nobody begins
		h.mu.Lock()
		h.stopped = true
		h.mu.Unlock()
	}
	d.wg.Wait()
	d.save(context.WithoutCancel(ctx))
	d.sender.client.CloseIdleConnections()
}

// save writes down how far webhooks have got. Run alone calls it.
func (d *Dispatcher) save(ctx context.Context) {
	d.mu.Lock()
	finished, dirty := d.finished, d.dirty
	d.finished, d.dirty = nil, map[*hook]struct{}{}
	d.mu.Unlock()
	if len(finished) == 0 && len(dirty) == 0 {
		return
	}
	progress := make([]catalog.WebhookProgress, 0, len(dirty))
	for h := range dirty {
		h.mu.Lock()
		if !h.dead {
			p := h.progress
			if !h.rows {
				p.Cursor = -1 // it knows of none
			}
			progress = append(progress, p)
		}
		h.mu.Unlock()
	}
	finished = lastOf(finished, d.opt.Keep)
	if err := d.opt.Catalog.SaveDeliveries(ctx, progress, finished, d.opt.Keep, d.opt.KeepParked); err != nil {
		d.opt.Logger.Error("write down what was delivered; it is tried again", "error", err)
		d.mu.Lock()
		d.finished = append(finished, d.finished...)
		if n := len(d.finished) - maxUnsaved; n > 0 {
			d.finished = d.finished[n:]
		}
		for h := range dirty {
			d.dirty[h] = struct{}{}
		}
		d.mu.Unlock()
	}
}

// lastOf leaves out what was delivered, came from no waiting message, and would be gone from the log at once: a busy webhook delivers thousands a second.
func lastOf(finished []catalog.FinishedDelivery, keep int) []catalog.FinishedDelivery {
	if len(finished) <= keep {
		return finished
	}
	n := map[string]int{}
	list := make([]catalog.FinishedDelivery, 0, keep)
	for _, f := range slices.Backward(finished) {
		if n[f.WebhookID]++; n[f.WebhookID] <= keep || f.State != catalog.Delivered || f.Seq != 0 {
			list = append(list, f)
		}
	}
	slices.Reverse(list)
	return list
}

// reconcile follows the catalog: which webhooks there are, and for which something waits.
func (d *Dispatcher) reconcile(ctx context.Context) error {
	all := d.opt.Catalog.Webhooks()
	waiting, err := d.opt.Catalog.WaitingWebhooks(ctx)
	if err != nil {
		return err
	}
	var progress map[string]catalog.WebhookProgress
	enabled := map[string]*catalog.Webhook{}
	fresh := false
	d.mu.Lock()
	kept := 0
	for _, list := range all {
		for _, w := range list {
			if w.Enabled {
				enabled[w.ID] = w
				h := d.hooks[w.ID]
				if h == nil || !h.begun.Equal(w.BegunAt) {
					fresh = true
				} else {
					kept++
				}
			}
		}
	}
	ends := kept < len(d.hooks)
	d.mu.Unlock()
	if fresh || ends {
		d.save(ctx) // nothing that is read now is older than what is known here, and who ends leaves what it knows
	}
	if fresh {
		if progress, err = d.opt.Catalog.WebhookProgress(ctx, ""); err != nil {
			return err
		}
	}
	d.mu.Lock()
	for id, h := range d.hooks {
		if enabled[id] == nil {
			h.end()
			delete(d.hooks, id)
		}
	}
	var begun []*hook
	for id, w := range enabled {
		h := d.hooks[id]
		if h != nil && h.begun.Equal(w.BegunAt) {
			h.follow(w)
			continue
		}
		p, ok := progress[id]
		if !ok {
			continue // it was made after the progress was read: the next look finds it
		}
		if h != nil {
			h.end()
		}
		h = &hook{d: d, rows: w.Events&catalog.RowEvents != 0, begun: w.BegunAt, id: id, database: w.DatabaseID, webhook: w, progress: p, attempts: p.Failures, failing: p.LastAt, waits: true}
		d.hooks[id] = h
		begun = append(begun, h)
	}
	byDatabase := map[string][]*hook{}
	for _, h := range d.hooks {
		if h.rows {
			byDatabase[h.database] = append(byDatabase[h.database], h)
		}
	}
	var unheard []string
	for id := range d.watched {
		if byDatabase[id] == nil {
			d.opt.Hub.Watch(id, nil)
			delete(d.watched, id)
			unheard = append(unheard, id)
		}
	}
	for id, list := range byDatabase {
		d.watched[id] = true
		d.opt.Hub.Watch(id, func() {
			for _, h := range list {
				h.wake()
			}
		})
	}
	for _, id := range waiting {
		if h := d.hooks[id]; h != nil {
			h.mu.Lock()
			h.waits = true
			h.mu.Unlock()
			begun = append(begun, h)
		}
	}
	d.mu.Unlock()
	for _, h := range begun {
		h.wake()
	}
	for _, id := range unheard {
		if _, err := d.opt.Catalog.DatabaseByID(id); err != nil {
			continue
		}
		if _, err := d.opt.Hub.ListenForGood(ctx, id, false); err != nil {
			d.opt.Logger.Warn("a database could not be told that nobody listens for good any more; it goes on keeping its changes", "database", id, "error", err)
		}
	}
	return nil
}

// backoff is how long to wait after so many failures.
func backoff(failures int, asked time.Duration) time.Duration {
	wait := maxBackoff
	if failures < 16 {
		wait = min(wait, firstBackoff<<(failures-1))
	}
	return max(wait-rand.N(wait/2+1), asked)
}
