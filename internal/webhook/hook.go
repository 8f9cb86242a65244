package webhook

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/feed"
)

// hook is an enabled webhook. It has a goroutine only while there is something to tell.
type hook struct {
	d     *Dispatcher
	rows  bool      // it is told of changes of rows
	begun time.Time // the webhook's BegunAt: with another one another hook goes on

	id, database string

	mu       sync.Mutex // the lanes of databases wait for it: nothing that takes time is done with it
	webhook  *catalog.Webhook
	progress catalog.WebhookProgress
	attempts int       // of the message that is told next
	failing  time.Time // since then nothing was taken
	slow     bool      // the last answer took long
	at       int       // how often somebody wanted it to be tried at once
	troubles int       // times that what is to be told could not be read
	pauseTo  time.Time // for that
	waits    bool      // something may wait that is no change of a row
	running  bool
	stopped  bool // the server stops
	again    bool
	dead     bool // it was deleted or disabled, or another hook took its place

	// Of who runs alone.
	listening bool              // the database was told to keep its changes for good
	queued    uint64            // the catalog's Queued when it was last looked for what waits
	behind    int64             // the last of the waiting messages that is finished
	commit    int64             // the last change of the commit that is told of in part
	told      map[string]bool   // the messages of that commit that are finished, by their ids
	missed    *catalog.Delivery // says that changes are missing; nil if none are
	head      int64             // it goes on behind this change then
}

var (
	// errFailed ends a run: the receiver failed, and is tried again later.
	errFailed = errors.New("the receiver failed")
	// errEnded ends a run of a hook that is no more.
	errEnded = errors.New("the webhook is no more")
)

// wake has the hook look for something to tell. It is called in the lanes of databases, and doesn't wait.
func (h *hook) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.again = true
	now := h.d.opt.Now()
	if h.running || h.dead || h.stopped || now.Before(h.progress.RetryAt) || now.Before(h.pauseTo) {
		return
	}
	h.running = true
	h.d.wg.Add(1)
	go h.run()
}

// retry wakes the hook if it is time to try again.
func (h *hook) retry(now time.Time) {
	h.mu.Lock()
	due := !h.running && (h.again || !h.progress.RetryAt.IsZero()) && !now.Before(h.progress.RetryAt) && !now.Before(h.pauseTo)
	h.mu.Unlock()
	if due {
		h.wake()
	}
}

// end ends the hook. An attempt that is under way is finished, and forgotten.
func (h *hook) end() {
	h.mu.Lock()
	h.dead = true
	h.mu.Unlock()
}

// follow goes on with the webhook as it is now. One with another address is tried at once, and one of which somebody wants that.
func (h *hook) follow(w *catalog.Webhook) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.webhook.URL != w.URL || h.webhook.Tries != w.Tries {
		h.progress.RetryAt, h.again = time.Time{}, true
		h.at++
	}
	h.webhook = w
}

// run tells what there is to tell.
func (h *hook) run() {
	defer h.d.wg.Done()
	for {
		h.mu.Lock()
		h.again = false
		h.mu.Unlock()
		more, err := h.turn(h.d.ctx)
		if err != nil && !errors.Is(err, errFailed) && !errors.Is(err, errEnded) && h.d.ctx.Err() == nil {
			h.d.opt.Logger.Warn("what a webhook is to be told could not be read; it is tried again", "webhook", h.id, "database", h.database, "error", err)
		}
		h.mu.Lock()
		switch {
		case err == nil:
			h.troubles = 0
			h.again = h.again || more
			if !h.again && !h.progress.RetryAt.IsZero() && !h.d.opt.Now().Before(h.progress.RetryAt) {
				h.progress.RetryAt = time.Time{} // nothing is left to be tried then
			}
		case errors.Is(err, errFailed):
			h.again = true
		case errors.Is(err, errEnded), h.d.ctx.Err() != nil:
		default:
			h.troubles++
			h.pauseTo, h.again = h.d.opt.Now().Add(backoff(h.troubles, 0)), true
		}
		if err != nil || !h.again || h.dead || h.d.ctx.Err() != nil {
			h.running = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
	}
}

// turn has a place among those who make attempts, for some messages and some time: only then anything is read, so that what waits for a place is in nobody's memory. more says
// that it may not have been all.
func (h *hook) turn(ctx context.Context) (more bool, err error) {
	h.mu.Lock()
	doubtful := h.progress.Failures > 0 || h.slow
	h.mu.Unlock()
	d, err := h.d.opt.Catalog.DatabaseByID(h.database)
	if err != nil {
		return false, errEnded // it was deleted; after an undelete another hook goes on
	}
	leave, err := h.d.enter(ctx, d.NamespaceID, doubtful)
	if err != nil {
		return false, err
	}
	defer leave()
	h.d.turns.Add(1)
	t := &turn{h: h, ctx: ctx, until: h.d.opt.Now().Add(turnTime)}
	return t.tell()
}

// turn is a hook's time in a place.
type turn struct {
	h     *hook
	ctx   context.Context
	until time.Time
}

// over tells whether the place is to be given to another one.
func (t *turn) over() bool { return !t.h.d.opt.Now().Before(t.until) }

// tell tells what waits and what was committed. Of two the older goes first.
func (t *turn) tell() (more bool, err error) {
	h := t.h
	if !h.rows {
		return t.tellWaiting(time.Time{})
	}
	if h.missed != nil {
		return true, t.tellMissed()
	}
	list, err := t.read()
	if err != nil {
		return false, err
	}
	if h.missed != nil {
		return true, t.tellMissed()
	}
	for _, m := range list {
		if more, err := t.tellWaiting(m.At()); more || err != nil {
			return more, err
		}
		if err := t.tellCommit(m); err != nil {
			return false, err
		}
		if t.over() {
			return true, nil
		}
	}
	if len(list) > 0 {
		return true, nil
	}
	return t.tellWaiting(time.Time{})
}

// read is what was committed behind what was told.
func (t *turn) read() ([]*feed.Messages, error) {
	h := t.h
	select { // databases may have to be opened: not all of them at once
	case h.d.reading <- struct{}{}:
	case <-t.ctx.Done():
		return nil, t.ctx.Err()
	}
	defer func() { <-h.d.reading }()
	h.mu.Lock()
	w, cursor := h.webhook, h.progress.Cursor
	h.mu.Unlock()
	if !h.listening {
		if _, err := h.d.opt.Hub.ListenForGood(t.ctx, h.database, true); err != nil {
			return nil, err
		}
		h.listening = true
	}
	list, missing, head, err := h.d.opt.Hub.Read(t.ctx, h.database, cursor, turnCommits)
	if missing {
		m := missed(w, head, h.d.opt.Now())
		h.missed, h.head = &m, head
	}
	return list, err
}

// tellMissed tells that changes are missing.
func (t *turn) tellMissed() error {
	h := t.h
	if _, err := t.tellWaiting(h.missed.At); err != nil {
		return err
	}
	if err := t.attempt(*h.missed); err != nil {
		return err
	}
	h.missed = nil
	h.reached(h.head)
	return nil
}

// tellCommit tells of a commit.
func (t *turn) tellCommit(m *feed.Messages) error {
	h := t.h
	h.mu.Lock()
	w := h.webhook
	h.mu.Unlock()
	if h.commit != m.Last {
		h.commit, h.told = m.Last, map[string]bool{}
	}
	// The webhook may be told of other tables than at the attempt before: what is finished goes by its id.
	for _, g := range groups(w, m) {
		one, err := g.delivery(w, m.At())
		if err != nil {
			return err
		}
		if h.told[one.ID] {
			continue
		}
		if err := t.attempt(one); err != nil {
			return err
		}
		h.told[one.ID] = true
	}
	h.commit, h.told = 0, nil
	h.reached(m.Last)
	return nil
}

// reached notes how far the changes of the database were told.
func (h *hook) reached(cursor int64) {
	h.mu.Lock()
	h.progress.Cursor = cursor
	h.mu.Unlock()
	h.d.mu.Lock()
	h.d.dirty[h] = struct{}{}
	h.d.mu.Unlock()
}

// tellWaiting tells what waits beside changes of rows, and isn't newer than a time; all of it if that is zero. more says that it was not all.
func (t *turn) tellWaiting(until time.Time) (more bool, err error) {
	h := t.h
	h.mu.Lock()
	if queued := h.d.opt.Catalog.Queued(); queued != h.queued {
		h.queued, h.waits = queued, true
	}
	some := h.waits
	h.waits = false
	h.mu.Unlock()
	if !some {
		return false, nil
	}
	defer func() {
		if more || err != nil {
			h.mu.Lock()
			h.waits = true
			h.mu.Unlock()
		}
	}()
	list, err := h.d.opt.Catalog.WaitingDeliveries(t.ctx, h.id, h.behind, turnCommits)
	if err != nil {
		return false, err
	}
	for _, one := range list {
		if !until.IsZero() && one.Since.After(until) {
			h.mu.Lock()
			h.waits = true
			h.mu.Unlock()
			return false, nil // the commit is older
		}
		if err := t.attempt(one); err != nil {
			return false, err
		}
		h.behind = one.Seq
		if t.over() {
			return true, nil
		}
	}
	return len(list) == turnCommits, nil
}

// attempt makes an attempt at a message. nil says that it is finished: taken, or parked.
func (t *turn) attempt(m catalog.Delivery) error {
	h := t.h
	h.mu.Lock()
	dead, due, at := h.dead, h.progress.RetryAt, h.at
	h.mu.Unlock()
	if dead {
		return errEnded
	}
	if h.d.opt.Now().Before(due) {
		return errFailed
	}
	d, err := h.d.opt.Catalog.DatabaseByID(h.database)
	if err != nil {
		return errEnded
	}
	// As it is at this moment: the dispatcher may not have looked yet.
	w, err := d.Webhook(h.id)
	if err != nil || !w.Enabled || !w.BegunAt.Equal(h.begun) {
		return errEnded
	}
	o, err := h.d.post(t.ctx, w, d, &m)
	if err != nil {
		return err
	}
	if o.status == http.StatusGone {
		h.d.gone(t.ctx, w)
	}
	return h.note(&m, o, at)
}

// note notes what came of an attempt.
func (h *hook) note(m *catalog.Delivery, o outcome, at int) error {
	now := h.d.opt.Now()
	h.mu.Lock()
	h.attempts++
	m.Attempts, m.LastAt, m.Status, m.Error, m.Duration = h.attempts, now, o.status, o.reason, o.took
	p := &h.progress
	p.LastAt, p.LastStatus, p.LastError = now, o.status, o.reason
	h.slow = o.took > slowAnswer
	finished := true
	if o.ok() {
		m.State, p.Failures, p.RetryAt = catalog.Delivered, 0, time.Time{}
		h.d.delivered.Add(1)
	} else {
		h.d.failed.Add(1)
		if p.Failures == 0 {
			h.failing = now
		}
		p.Failures++
		if p.RetryAt = now.Add(backoff(p.Failures, o.retryAfter)); h.at != at { // somebody wanted it to be tried at once meanwhile
			p.RetryAt = time.Time{}
		}
		// One failure after a day on which the server was off is no reason.
		if finished = now.Sub(m.Since) >= h.d.opt.RetryFor && now.Sub(h.failing) >= h.d.opt.RetryFor; finished {
			m.State = catalog.DeliveryParked
			h.d.parked.Add(1)
		}
	}
	if finished {
		h.attempts = 0
	}
	dead := h.dead
	h.mu.Unlock()
	if m.State == catalog.DeliveryParked {
		h.d.opt.Logger.Warn("a message to a webhook was given up; it is parked", "webhook", h.id, "database", h.database, "message", m.ID, "attempts", m.Attempts, "error", o.reason)
	}
	h.d.mu.Lock()
	h.d.dirty[h] = struct{}{}
	if finished {
		h.d.finished = append(h.d.finished, catalog.FinishedDelivery{WebhookID: h.id, Delivery: *m})
	}
	h.d.mu.Unlock()
	switch {
	case finished:
		return nil // of a parked one the next is told when it is time to try again
	case dead:
		return errEnded
	}
	return errFailed
}
