package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/wire"
)

// ruleRequest is the body of POST …/approval-rules.
type ruleRequest struct {
	TableGlob        string          `json:"tableGlob"`
	Action           string          `json:"action"`
	Note             string          `json:"note"`
	Operations       []string        `json:"operations"`
	MaxRows          *int64          `json:"maxRows"`
	Locked           bool            `json:"locked"`
	Approvers        json.RawMessage `json:"approvers"`
	ExcludeRequester bool            `json:"excludeRequester"`
}

// rule is the rule that is asked for.
func (req *ruleRequest) rule() (r approval.Rule, err error) {
	r = approval.Rule{TableGlob: req.TableGlob, Action: approval.Action(req.Action), Note: req.Note, MaxRows: approval.NoMaxRows, Locked: req.Locked, ExcludeRequester: req.ExcludeRequester}
	if r.Operations, err = approval.ParseOps(req.Operations); err != nil {
		return r, err
	}
	if req.MaxRows != nil {
		if *req.MaxRows < 0 {
			return r, approval.ErrMaxRows
		}
		r.MaxRows = *req.MaxRows
	}
	if len(req.Approvers) > 0 && string(req.Approvers) != "null" {
		if n, nerr := strconv.Atoi(string(req.Approvers)); nerr == nil && n > 0 {
			r.Approvers = n
		} else if json.Unmarshal(req.Approvers, &r.ApproverRole) != nil || r.ApproverRole == "" {
			return r, approval.ErrApprovers
		}
	}
	return r, r.Check()
}

// listRules serves GET …/approval-rules, in the order of their making.
func (s *Server) listRules(x *exchange) error {
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayRule("GET …/approval-rules"); err != nil {
		return err
	}
	x.success()
	b := append(x.out, '[')
	if x.database.Rules != nil {
		for i, r := range x.database.Rules.All {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendRule(b, r)
		}
	}
	x.out = append(b, `]}`...)
	return nil
}

// createRule serves POST …/approval-rules.
func (s *Server) createRule(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req ruleRequest
	if err := x.object(&req); err != nil {
		return err
	}
	// A misspelled member must not make a rule that holds less.
	if err := x.strictly(&req, true); err != nil {
		return err
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayRule("POST …/approval-rules"); err != nil {
		return err
	}
	n, err := req.rule()
	if err != nil {
		return badRule(err)
	}
	if x.user != nil { // what a person decides no bearer takes away
		n.Locked, n.ByMember = true, true
	}
	r, err := s.opt.Catalog.CreateRule(x.acting(x.r.Context()), x.database.ID, n)
	if err != nil {
		return err
	}
	x.success()
	x.out = append(appendRule(x.out, r), '}')
	return nil
}

// badRule is the fault of a rule that can be none.
func badRule(err error) error {
	for _, known := range []error{approval.ErrGlob, approval.ErrAction, approval.ErrOperations, approval.ErrNote, approval.ErrMaxRows, approval.ErrApprovers} {
		if errors.Is(err, known) {
			message := known.Error()
			return newFault(http.StatusBadRequest, "invalid_rule", string(message[0]-'a'+'A')+message[1:], `for example {"tableGlob": "production_*", "action": "require_approval"}`)
		}
	}
	return err
}

// deleteRule serves DELETE …/approval-rules/:id. By a member's hand it goes; a bearer needs an approval.
func (s *Server) deleteRule(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayRule("DELETE …/approval-rules"); err != nil {
		return err
	}
	id := unescape(x.param("id"))
	r, err := x.database.Rule(id)
	if err != nil {
		return err
	}
	if x.user == nil {
		if r.Locked || r.ByMember {
			return newFault(http.StatusForbidden, "rule_locked", "The approval rule is locked: no token can delete it", "a member with the role admin deletes it, signed in to the console")
		}
		hits := []approval.Hit{{Rule: r, Table: r.TableGlob, Op: r.Operations, Rows: -1}}
		what := "asks for approval of"
		if r.Action == approval.Deny {
			what = "denies"
		}
		x.call = heldCall{kind: kindDeleteRule, params: map[string]string{"id": id}, title: fmt.Sprintf("Delete the approval rule for %s, which %s %s", r.TableGlob, what, strings.Join(r.Operations.Names(), ", "))}
		if !x.pass.Has(&hits[0]) {
			// Whatever it does, the rule itself is what is to be loosened: people may allow that.
			return &approval.Stop{Hits: hits, Allowed: true}
		}
	}
	if _, err := s.opt.Catalog.DeleteRule(x.acting(x.r.Context()), x.database.ID, id, x.permit.ID); err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"id":`...)
	b = wire.AppendString(b, r.ID)
	x.out = append(b, `,"deleted":true}}`...)
	return nil
}

func appendRule(b []byte, r *approval.Rule) []byte {
	b = append(b, `{"id":`...)
	b = wire.AppendString(b, r.ID)
	b = append(b, `,"tableGlob":`...)
	b = wire.AppendString(b, r.TableGlob)
	b = append(b, `,"action":`...)
	b = wire.AppendString(b, string(r.Action))
	b = append(b, `,"operations":`...)
	b = appendNames(b, r.Operations.Names())
	b = append(b, `,"maxRows":`...)
	if r.MaxRows == approval.NoMaxRows {
		b = append(b, `null`...)
	} else {
		b = wire.AppendInt(b, r.MaxRows)
	}
	b = append(b, `,"note":`...)
	b = wire.AppendString(b, r.Note)
	b = append(b, `,"locked":`...)
	b = strconv.AppendBool(b, r.Locked)
	b = append(b, `,"approvers":`...)
	if r.ApproverRole != approval.RoleEditor {
		b = wire.AppendString(b, r.ApproverRole)
	} else {
		b = wire.AppendInt(b, int64(r.Approvers))
	}
	b = append(b, `,"excludeRequester":`...)
	b = strconv.AppendBool(b, r.ExcludeRequester)
	b = append(b, `,"createdAt":`...)
	b = appendTime(b, r.CreatedAt)
	return append(b, '}')
}

// rulesOf are the rules that the request's writes are judged by.
func (x *exchange) rulesOf(d *catalog.Database) *approval.Rules {
	if x.unruled {
		return nil
	}
	return d.Rules
}
