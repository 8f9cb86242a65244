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

	mu       sync.Mutex
	webhook  *catalog.Webhook
	progress catalog.WebhookProgress
	attempts int       // of the message that is told next
	troubles int       // times that what is to be told could not be read
	pauseTo  time.Time // for that
	outbox   bool      // something may wait that is no change of a row
	running  bool
	stopped  bool // the server stops
	again    bool
	dead     bool // it was deleted or disabled, or another hook took its place

	// Of who runs alone.
	listening bool  // the database was told to keep its changes for good
	behind    int64 // the last of the waiting messages that is finished
	commit    int64 // the last change of the commit that is told of in part
	told      int   // messages of that commit that are finished
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
		err := h.drain(h.d.ctx)
		h.mu.Lock()
		switch {
		case err == nil:
			h.troubles = 0
		case errors.Is(err, errFailed), errors.Is(err, errEnded), h.d.ctx.Err() != nil:
		case errors.Is(err, feed.ErrBehind):
			h.again = true // it is read from the journal
			err = nil
		default:
			h.troubles++
			h.pauseTo, h.again = h.d.opt.Now().Add(backoff(h.troubles, 0)), true
			h.d.opt.Logger.Warn("what a webhook is to be told could not be read; it is tried again", "webhook", h.webhook.ID, "database", h.webhook.DatabaseID, "error", err)
		}
		if err != nil || !h.again || h.dead || h.d.ctx.Err() != nil {
			if errors.Is(err, errFailed) {
				h.again = true
			}
			h.running = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
	}
}

// drain tells until nothing is left. Of two that wait, the older goes first.
func (h *hook) drain(ctx context.Context) error {
	if !h.rows {
		return h.tellWaiting(ctx, time.Time{})
	}
	reader, err := h.join(ctx)
	if err != nil {
		return err
	}
	defer reader.Leave()
	for {
		list, resync, _, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		if resync {
			h.mu.Lock()
			w := h.webhook
			h.mu.Unlock()
			if err := h.tell(ctx, missed(w, reader.Seen(), h.d.opt.Now())); err != nil {
				return err
			}
			h.reached(reader.Seen())
			continue
		}
		if len(list) == 0 {
			return h.tellWaiting(ctx, time.Time{})
		}
		if h.d.opt.Now().Sub(list[0].At()) > lateAfter && h.told == 0 {
			if err := h.tellCommits(ctx, list...); err != nil {
				return err
			}
			continue
		}
		for _, m := range list {
			if err := h.tellCommits(ctx, m); err != nil {
				return err
			}
		}
	}
}

// join begins to read behind what was told.
func (h *hook) join(ctx context.Context) (*feed.Reader, error) {
	select { // databases may have to be opened: not all of them at once
	case h.d.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.d.reading }()
	h.mu.Lock()
	database, cursor := h.webhook.DatabaseID, h.progress.Cursor
	h.mu.Unlock()
	if !h.listening {
		if _, err := h.d.opt.Hub.ListenForGood(ctx, database, true); err != nil {
			return nil, err
		}
		h.listening = true
	}
	return h.d.opt.Hub.JoinFree(ctx, database, cursor)
}

// tellCommits tells of commits, which become the same messages.
func (h *hook) tellCommits(ctx context.Context, commits ...*feed.Messages) error {
	at, last := commits[0].At(), commits[len(commits)-1].Last
	if err := h.tellWaiting(ctx, at); err != nil {
		return err
	}
	h.mu.Lock()
	w := h.webhook
	h.mu.Unlock()
	if h.commit != last {
		h.commit, h.told = last, 0
	}
	list := groups(w, commits...)
	for h.told < len(list) {
		one, err := list[h.told].delivery(w, at)
		if err != nil {
			return err
		}
		if err := h.tell(ctx, one); err != nil {
			return err
		}
		h.told++
	}
	h.commit, h.told = 0, 0
	h.reached(last)
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

// tellWaiting tells what waits beside changes of rows, and isn't newer than a time; all of it if that is zero.
func (h *hook) tellWaiting(ctx context.Context, until time.Time) error {
	for {
		h.mu.Lock()
		some, id := h.outbox, h.webhook.ID
		h.outbox = false
		h.mu.Unlock()
		if !some {
			return nil
		}
		again := func() {
			h.mu.Lock()
			h.outbox = true
			h.mu.Unlock()
		}
		list, err := h.d.opt.Catalog.WaitingDeliveries(ctx, id, h.behind, page)
		if err != nil {
			again()
			return err
		}
		for _, one := range list {
			if !until.IsZero() && one.Since.After(until) {
				again()
				return nil
			}
			if err := h.tell(ctx, one); err != nil {
				again()
				return err
			}
			h.behind = one.Seq
		}
		if len(list) == page {
			again()
		}
	}
}

// tell makes an attempt. nil says that the message is finished: taken, or parked.
func (h *hook) tell(ctx context.Context, m catalog.Delivery) error {
	h.mu.Lock()
	slots := h.d.slots
	if h.progress.Failures > 0 {
		slots = h.d.doubts
	}
	due := h.progress.RetryAt
	h.mu.Unlock()
	if h.d.opt.Now().Before(due) {
		return errFailed
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-slots }()
	h.mu.Lock()
	w, dead := h.webhook, h.dead
	h.mu.Unlock()
	if dead {
		return errEnded
	}
	d, err := h.d.opt.Catalog.DatabaseByID(w.DatabaseID)
	if err != nil {
		return errEnded // it was deleted; after an undelete another hook goes on
	}
	// As it is at this moment: the dispatcher may not have looked yet.
	if w, err = d.Webhook(w.ID); err != nil || !w.Enabled || !w.BegunAt.Equal(h.begun) {
		return errEnded
	}
	o, err := h.attempt(ctx, w, d, &m)
	if err != nil {
		return err
	}
	if o.status == http.StatusGone {
		h.gone(ctx, w)
	}
	return h.note(&m, o)
}

// attempt makes an attempt.
func (h *hook) attempt(ctx context.Context, w *catalog.Webhook, d *catalog.Database, m *catalog.Delivery) (o outcome, err error) {
	ns, err := h.d.opt.Catalog.NamespaceByID(d.NamespaceID)
	if err != nil {
		return o, errEnded
	}
	body, err := Body(m, ns.Slug+":"+d.Slug, h.d.opt.BaseURL)
	if err != nil {
		return o, err
	}
	now := h.d.opt.Now()
	secrets, err := h.d.opt.Catalog.WebhookSecrets(w)
	if err != nil {
		return outcome{reason: catalog.ErrSealed.Error() + "; POST …/rotate-secret makes another one"}, nil
	}
	signature, err := signatures(secrets, m.ID, now, body)
	if err != nil {
		return o, err
	}
	if o = h.d.sender.post(ctx, w.URL, m.ID, now, signature, body); ctx.Err() != nil {
		return o, ctx.Err() // the server stops: nothing is known of this attempt
	}
	return o, nil
}

// note notes what came of an attempt.
func (h *hook) note(m *catalog.Delivery, o outcome) error {
	now := h.d.opt.Now()
	h.mu.Lock()
	h.attempts++
	m.Attempts, m.LastAt, m.Status, m.Error, m.Duration = h.attempts, now, o.status, o.reason, o.took
	p := &h.progress
	p.LastAt, p.LastStatus, p.LastError = now, o.status, o.reason
	finished := true
	switch {
	case o.ok():
		m.State, p.Failures, p.RetryAt = catalog.Delivered, 0, time.Time{}
		h.d.delivered.Add(1)
	default:
		h.d.failed.Add(1)
		p.Failures++
		p.RetryAt = now.Add(backoff(p.Failures, o.retryAfter))
		if finished = now.Sub(m.Since) >= h.d.opt.RetryFor; finished {
			m.State = catalog.DeliveryParked
			h.d.parked.Add(1)
			h.d.opt.Logger.Warn("a message to a webhook was given up; it is parked", "webhook", h.webhook.ID, "database", h.webhook.DatabaseID, "message", m.ID, "attempts", m.Attempts, "error", o.reason)
		}
	}
	if finished {
		h.attempts = 0
	}
	dead, id := h.dead, h.webhook.ID
	h.mu.Unlock()
	h.d.mu.Lock()
	h.d.dirty[h] = struct{}{}
	if finished {
		h.d.finished = append(h.d.finished, catalog.FinishedDelivery{WebhookID: id, Delivery: *m})
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

// gone disables a webhook whose receiver says that it is no more (RFC 9110, section 15.5.11; Standard Webhooks, "Disabling endpoints").
func (h *hook) gone(ctx context.Context, w *catalog.Webhook) {
	_, err := h.d.opt.Catalog.UpdateWebhook(ctx, w.DatabaseID, w.ID, func(w *catalog.Webhook) error { w.Enabled = false; return nil }, -1)
	if err != nil {
		h.d.opt.Logger.Warn("a webhook whose receiver is gone could not be disabled", "webhook", w.ID, "error", err)
		return
	}
	h.d.opt.Logger.Warn("a webhook's receiver answered 410: the webhook is disabled", "webhook", w.ID, "database", w.DatabaseID)
}
