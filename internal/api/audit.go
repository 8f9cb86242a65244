package api

import (
	"context"
	"strings"

	"github.com/persqld/persqld/internal/catalog"
)

// acting is a context that says whose request it is, for the audit log.
func (x *exchange) acting(ctx context.Context) context.Context {
	if x.user != nil {
		return x.actingAs(ctx, x.user)
	}
	a := catalog.Actor{Type: catalog.ActorToken, ID: x.token.ID}
	if id, scheduled := strings.CutPrefix(x.token.ID, schedulePrefix); scheduled {
		a = catalog.Actor{Type: catalog.ActorSchedule, ID: id}
	}
	if x.token.ID == OperatorID {
		return catalog.WithActor(ctx, catalog.Actor{Type: catalog.ActorOperator})
	}
	if address := x.s.clientAddress(x.r); address.IsValid() {
		a.Address = address.String()
	}
	return catalog.WithActor(ctx, a)
}

// record notes in the audit log what was done to the request's database. What was done stands; that it can't be noted is the
// operator's to know.
func (x *exchange) record(action string, metadata map[string]any) {
	ctx := x.acting(context.WithoutCancel(x.r.Context()))
	if err := x.s.opt.Catalog.Record(ctx, action, x.database, metadata); err != nil {
		x.s.log.Error("write audit log", "action", action, "database", x.database.ID, "error", err)
	}
}

// note is record for what takes less time than an entry does on its way to the disk: nobody waits for that.
func (x *exchange) note(action string, metadata map[string]any) {
	if err := x.s.opt.Catalog.Note(x.acting(context.WithoutCancel(x.r.Context())), action, x.database, metadata); err != nil {
		x.s.log.Error("write audit log", "action", action, "database", x.database.ID, "error", err)
	}
}

type auditEntry struct {
	ID       string         `json:"id"`
	At       string         `json:"at"`
	Action   string         `json:"action"`
	Actor    auditActor     `json:"actor"`
	Address  *string        `json:"address"`
	Target   auditTarget    `json:"target"`
	Metadata map[string]any `json:"metadata"`
}

type auditActor struct {
	Type string  `json:"type"`
	ID   *string `json:"id"`
}

type auditTarget struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Name string `json:"name"`
}

const (
	auditLimit    = 100
	auditMaxLimit = 500
)

// auditLog serves GET /v1/audit.
func (s *Server) auditLog(x *exchange) error {
	if err := x.needUnscoped("GET /v1/audit"); err != nil {
		return err
	}
	limit, err := x.limit(auditLimit, auditMaxLimit)
	if err != nil {
		return err
	}
	q := x.r.URL.Query()
	events, err := s.opt.Catalog.Audit(x.r.Context(), catalog.AuditQuery{NamespaceID: x.token.NamespaceID, TestOnly: x.token.Test,
		Action: q.Get("action"), Before: q.Get("before"), Limit: limit})
	if err != nil {
		return err
	}
	list := make([]auditEntry, 0, len(events))
	optional := func(v string) *string {
		if v == "" {
			return nil
		}
		return &v
	}
	for _, e := range events {
		list = append(list, auditEntry{ID: e.ID, At: e.At.Format(timeFormat), Action: e.Action, Actor: auditActor{e.Actor.Type, optional(e.Actor.ID)},
			Address: optional(e.Actor.Address), Target: auditTarget{e.TargetType, e.TargetID, e.TargetName}, Metadata: e.Metadata})
	}
	return x.reply(list)
}
