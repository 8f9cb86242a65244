package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/outbound"
	"github.com/persqld/persqld/internal/webhook"
	"github.com/persqld/persqld/internal/wire"
)

// Webhooks says what the calls about webhooks go by.
type Webhooks struct {
	Networks outbound.Networks // what they may reach beside the internet
	Max      int               // of a database; 20
	Overlap  time.Duration     // that a secret signs after it was rotated; 24 h
}

// webhookRequest is the body of POST …/webhooks, and of PATCH …/webhooks/:id.
type webhookRequest struct {
	Name    *string         `json:"name"`
	URL     *string         `json:"url"`
	Tables  json.RawMessage `json:"tables"`
	Events  json.RawMessage `json:"events"`
	Enabled *bool           `json:"enabled"`
}

// put changes a webhook as the request says.
func (req *webhookRequest) put(w *catalog.Webhook, networks outbound.Networks) (err error) {
	if req.Name != nil {
		if w.Name = *req.Name; w.Name == "" {
			return newFault(http.StatusBadRequest, "invalid_webhook", "A webhook needs a name", `for example {"name": "orders", "url": "https://example.com/hook"}`)
		}
	}
	if req.URL != nil {
		if w.URL = *req.URL; w.URL != "" {
			if err := networks.CheckURL(w.URL); err != nil {
				return err
			}
		}
	}
	if w.URL == "" {
		return newFault(http.StatusBadRequest, "invalid_webhook", "A webhook needs a url", `for example {"name": "orders", "url": "https://example.com/hook"}`)
	}
	names := func(raw json.RawMessage, what string) (list []string, given bool, err error) {
		if len(raw) == 0 {
			return nil, false, nil
		}
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, true, newFault(http.StatusBadRequest, "invalid_webhook", what+" must be a list of texts", "leave it out for all of them")
		}
		return list, true, nil
	}
	tables, given, err := names(req.Tables, "tables")
	if err != nil {
		return err
	}
	if given {
		if w.Tables = nil; tables != nil {
			if w.Tables, err = filterOf(tables); err != nil {
				return err
			}
			if w.Tables != nil && len(w.Tables) == 0 {
				return newFault(http.StatusBadRequest, "invalid_webhook", "tables is an empty list", "leave it out for all of them")
			}
		}
	}
	events, given, err := names(req.Events, "events")
	if err != nil {
		return err
	}
	if given {
		if w.Events, err = catalog.ParseWebhookEvents(events); err != nil {
			return err
		}
	}
	if req.Enabled != nil {
		w.Enabled = *req.Enabled
	}
	return nil
}

// badWebhook is the fault of a webhook that can be none.
func badWebhook(err error) error {
	hint := ""
	switch {
	case errors.Is(err, outbound.ErrURL):
	case errors.Is(err, outbound.ErrAddress):
		hint = "the operator names networks that webhooks may reach in PERSQLD_ALLOW_NETWORKS"
	case errors.Is(err, catalog.ErrWebhookEvents):
		hint = "leave it out for all of them"
	default:
		return err
	}
	message := err.Error()
	return newFault(http.StatusBadRequest, "invalid_webhook", string(message[0]-'a'+'A')+message[1:], hint)
}

// openWebhooks finds the database of a call that only admins may make.
func (x *exchange) openWebhooks(call string) error {
	if err := x.openDatabase(false); err != nil {
		return err
	}
	return x.mayRule(call)
}

// openWebhook finds the webhook that a call is about, too.
func (x *exchange) openWebhook(call string) (*catalog.Webhook, error) {
	if err := x.openWebhooks(call); err != nil {
		return nil, err
	}
	return x.database.Webhook(unescape(x.param("id")))
}

// readWebhook reads the body of a call that makes or changes one.
func (x *exchange) readWebhook() (req webhookRequest, err error) {
	if err := x.refuseKey(); err != nil {
		return req, err
	}
	if err := x.object(&req); err != nil {
		return req, err
	}
	// A misspelled member must not make a webhook that is told more, or less.
	return req, x.strictly(&req, true)
}

// listWebhooks serves GET …/webhooks, in the order of their making.
func (s *Server) listWebhooks(x *exchange) error {
	if err := x.openWebhooks("GET …/webhooks"); err != nil {
		return err
	}
	progress, err := s.opt.Catalog.WebhookProgress(x.r.Context(), x.database.ID)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, '[')
	for i, w := range x.database.Webhooks.All() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = s.appendWebhook(x, b, w, progress[w.ID]); err != nil {
			return err
		}
	}
	x.out = append(b, `]}`...)
	return nil
}

// getWebhook serves GET …/webhooks/:id.
func (s *Server) getWebhook(x *exchange) error {
	w, err := x.openWebhook("GET …/webhooks")
	if err != nil {
		return err
	}
	return s.tellWebhook(x, w)
}

// tellWebhook answers with a webhook.
func (s *Server) tellWebhook(x *exchange, w *catalog.Webhook) error {
	progress, err := s.opt.Catalog.WebhookProgress(x.r.Context(), w.DatabaseID)
	if err != nil {
		return err
	}
	x.success()
	b, err := s.appendWebhook(x, x.out, w, progress[w.ID])
	x.out = append(b, '}')
	return err
}

// createWebhook serves POST …/webhooks.
func (s *Server) createWebhook(x *exchange) error {
	req, err := x.readWebhook()
	if err != nil {
		return err
	}
	if err := x.openWebhooks("POST …/webhooks"); err != nil {
		return err
	}
	w := catalog.Webhook{Events: catalog.AllEvents, Enabled: true}
	if req.Name == nil {
		req.Name = new(string)
	}
	if err := req.put(&w, s.opt.Webhooks.Networks); err != nil {
		return badWebhook(err)
	}
	if len(x.database.Webhooks.All()) >= s.opt.Webhooks.Max {
		return catalog.ErrTooManyWebhooks
	}
	cursor, err := x.webhookBegins(&w)
	if err != nil {
		return err
	}
	made, err := s.opt.Catalog.CreateWebhook(x.acting(x.r.Context()), x.database.ID, w, cursor, s.opt.Webhooks.Max)
	if err != nil {
		x.webhookFails(&w)
		return err
	}
	return s.tellWebhook(x, made)
}

// webhookBegins has the database keep its changes from now on, for a webhook that is told of them, and is the last one before.
func (x *exchange) webhookBegins(w *catalog.Webhook) (cursor int64, err error) {
	if !w.Enabled || w.Events&catalog.RowEvents == 0 || x.s.opt.Feed == nil {
		return 0, nil
	}
	return x.s.opt.Feed.ListenForGood(x.r.Context(), x.database.ID, true)
}

// webhookFails takes back what webhookBegins did where nothing came of it, unless another webhook is told of changes. One that is made in the meantime has its listening made good when it first reads.
func (x *exchange) webhookFails(w *catalog.Webhook) {
	if !w.Enabled || w.Events&catalog.RowEvents == 0 || x.s.opt.Feed == nil {
		return
	}
	if d, err := x.s.opt.Catalog.DatabaseByID(x.database.ID); err != nil || slices.ContainsFunc(d.Webhooks.All(), func(other *catalog.Webhook) bool { return other.Enabled && other.Events&catalog.RowEvents != 0 }) {
		return
	}
	if _, err := x.s.opt.Feed.ListenForGood(context.WithoutCancel(x.r.Context()), x.database.ID, false); err != nil {
		x.s.log.Warn("a database goes on keeping changes that nobody wants", "database", x.database.ID, "error", err)
	}
}

// updateWebhook serves PATCH …/webhooks/:id: what isn't named stays. One that is enabled goes on from now.
func (s *Server) updateWebhook(x *exchange) error {
	req, err := x.readWebhook()
	if err != nil {
		return err
	}
	w, err := x.openWebhook("PATCH …/webhooks")
	if err != nil {
		return err
	}
	next := *w
	if err := req.put(&next, s.opt.Webhooks.Networks); err != nil {
		return badWebhook(err)
	}
	cursor := int64(-1)
	if next.Enabled && (!w.Enabled || w.Events&catalog.RowEvents == 0) {
		if cursor, err = x.webhookBegins(&next); err != nil {
			return err
		}
	}
	changed, err := s.opt.Catalog.UpdateWebhook(x.acting(x.r.Context()), x.database.ID, w.ID, func(w *catalog.Webhook) error { return req.put(w, s.opt.Webhooks.Networks) }, cursor)
	if err != nil {
		if cursor >= 0 {
			x.webhookFails(&next)
		}
		return badWebhook(err)
	}
	return s.tellWebhook(x, changed)
}

// rotateWebhookSecret serves POST …/webhooks/:id/rotate-secret.
func (s *Server) rotateWebhookSecret(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	w, err := x.openWebhook("POST …/webhooks/:id/rotate-secret")
	if err != nil {
		return err
	}
	if w, err = s.opt.Catalog.RotateWebhookSecret(x.acting(x.r.Context()), x.database.ID, w.ID, s.opt.Webhooks.Overlap); err != nil {
		return err
	}
	return s.tellWebhook(x, w)
}

// deleteWebhook serves DELETE …/webhooks/:id.
func (s *Server) deleteWebhook(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	w, err := x.openWebhook("DELETE …/webhooks")
	if err != nil {
		return err
	}
	if err := s.opt.Catalog.DeleteWebhook(x.acting(x.r.Context()), x.database.ID, w.ID); err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"id":`...)
	b = wire.AppendString(b, w.ID)
	x.out = append(b, `,"deleted":true}}`...)
	return nil
}

const (
	deliveriesLimit    = 100
	deliveriesMaxLimit = 500
)

// listDeliveries serves GET …/webhooks/:id/deliveries, the newest first.
func (s *Server) listDeliveries(x *exchange) error {
	w, err := x.openWebhook("GET …/webhooks/:id/deliveries")
	if err != nil {
		return err
	}
	q := catalog.DeliveryQuery{WebhookID: w.ID}
	v := x.r.URL.Query()
	switch q.State = catalog.DeliveryState(v.Get("state")); q.State {
	case "", catalog.DeliveryWaiting, catalog.Delivered, catalog.DeliveryParked:
	default:
		return newFault(http.StatusBadRequest, codeBadRequest, "state must be waiting, delivered or parked", "")
	}
	if before := v.Get("before"); before != "" {
		if q.Before, err = strconv.ParseInt(before, 10, 64); err != nil || q.Before < 1 {
			return newFault(http.StatusBadRequest, codeBadRequest, "before must be the number of a delivery", "")
		}
	}
	if q.Limit, err = x.limit(deliveriesLimit, deliveriesMaxLimit); err != nil {
		return err
	}
	list, err := s.opt.Catalog.Deliveries(x.r.Context(), q)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = s.appendDelivery(x, b, &list[i]); err != nil {
			return err
		}
	}
	x.out = append(b, `]}`...)
	return nil
}

// replayWebhook serves POST …/webhooks/:id/replay: one delivery, or all that are parked.
func (s *Server) replayWebhook(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req struct {
		ID string `json:"id"`
	}
	if err := x.readBody(); err != nil {
		return err
	}
	if len(x.body) > 0 { // without one it is for all that are parked
		if err := wire.DecodeObject(x.body, &req); err != nil {
			return err
		}
		if err := x.strictly(&req, true); err != nil {
			return err
		}
	}
	w, err := x.openWebhook("POST …/webhooks/:id/replay")
	if err != nil {
		return err
	}
	n, err := s.opt.Catalog.Replay(x.acting(x.r.Context()), x.database.ID, w.ID, req.ID)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"deliveries":`...)
	b = strconv.AppendInt(b, int64(n), 10)
	x.out = append(b, `}}`...)
	return nil
}

// appendWebhook writes a webhook's object.
func (s *Server) appendWebhook(x *exchange, b []byte, w *catalog.Webhook, p catalog.WebhookProgress) ([]byte, error) {
	parked, err := s.opt.Catalog.ParkedDeliveries(x.r.Context(), w.ID)
	if err != nil {
		return b, err
	}
	b = append(b, `{"id":`...)
	b = wire.AppendString(b, w.ID)
	b = append(b, `,"name":`...)
	b = wire.AppendString(b, w.Name)
	b = append(b, `,"url":`...)
	b = wire.AppendString(b, w.URL)
	b = append(b, `,"tables":`...)
	if w.Tables == nil {
		b = append(b, `null`...)
	} else {
		b = appendNames(b, w.Tables)
	}
	b = append(b, `,"events":`...)
	b = appendNames(b, w.Events.Names())
	b = append(b, `,"enabled":`...)
	b = strconv.AppendBool(b, w.Enabled)
	b = append(b, `,"secret":`...)
	if secrets, err := s.opt.Catalog.WebhookSecrets(w); err != nil {
		s.log.Warn("a webhook's secret can't be read; rotating makes another one", "webhook", w.ID, "error", err)
		b = append(b, `null`...)
	} else {
		b = wire.AppendString(b, secrets[0])
	}
	b = append(b, `,"createdAt":`...)
	b = appendTime(b, w.CreatedAt)
	b = append(b, `,"failures":`...)
	b = strconv.AppendInt(b, int64(p.Failures), 10)
	b = append(b, `,"nextAttemptAt":`...)
	b = appendTime(b, p.RetryAt)
	b = append(b, `,"lastAttemptAt":`...)
	b = appendTime(b, p.LastAt)
	b = appendAnswered(b, "lastStatus", p.LastStatus, "lastError", p.LastError)
	b = append(b, `,"parked":`...)
	b = strconv.AppendInt(b, int64(parked), 10)
	return append(b, '}'), nil
}

// appendAnswered writes what a receiver answered, and why that was a failure; null each where there is nothing.
func appendAnswered(b []byte, status string, code int, reason, text string) []byte {
	b = append(b, `,"`+status+`":`...)
	if code == 0 {
		b = append(b, `null`...)
	} else {
		b = strconv.AppendInt(b, int64(code), 10)
	}
	b = append(b, `,"`+reason+`":`...)
	if text == "" {
		return append(b, `null`...)
	}
	return wire.AppendString(b, text)
}

// appendDelivery writes a delivery's object.
func (s *Server) appendDelivery(x *exchange, b []byte, d *catalog.Delivery) ([]byte, error) {
	ns, err := s.opt.Catalog.NamespaceByID(x.database.NamespaceID)
	if err != nil {
		return b, err
	}
	body, err := webhook.Body(d, ns.Slug+":"+x.database.Slug, s.opt.BaseURL)
	if err != nil {
		return b, err
	}
	b = append(b, `{"number":`...)
	b = strconv.AppendInt(b, d.Seq, 10)
	b = append(b, `,"id":`...)
	b = wire.AppendString(b, d.ID)
	b = append(b, `,"type":`...)
	b = wire.AppendString(b, d.Type)
	b = append(b, `,"state":`...)
	b = wire.AppendString(b, string(d.State))
	b = append(b, `,"body":`...)
	b = append(b, body...)
	b = append(b, `,"attempts":`...)
	b = strconv.AppendInt(b, int64(d.Attempts), 10)
	b = append(b, `,"lastAttemptAt":`...)
	b = appendTime(b, d.LastAt)
	b = appendAnswered(b, "status", d.Status, "error", d.Error)
	b = append(b, `,"durationMs":`...)
	b = strconv.AppendInt(b, d.Duration.Milliseconds(), 10)
	return append(b, '}'), nil
}
