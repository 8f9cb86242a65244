package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// policyRequest is the body of POST …/policies.
type policyRequest struct {
	Name       string   `json:"name"`
	TableName  string   `json:"tableName"`
	Expression string   `json:"expression"`
	Enabled    *bool    `json:"enabled"`
	AppliesTo  []string `json:"appliesTo"`
}

// mayRule refuses a token that may not make or see policies.
func (x *exchange) mayRule(what string) error {
	if err := x.needAdmin(what); err != nil {
		return err
	}
	if x.token.Claims != nil {
		return newFault(http.StatusForbidden, gate.CodePolicy, "Token claims hold it to what policies allow: it cannot run "+what, "use a token without claims")
	}
	return x.needAllTables(what)
}

// listPolicies serves GET …/policies, in the order of their making.
func (s *Server) listPolicies(x *exchange) error {
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayRule("GET …/policies"); err != nil {
		return err
	}
	x.success()
	b := append(x.out, '[')
	if x.database.Policies != nil {
		for i, p := range x.database.Policies.All {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendPolicy(b, p)
		}
	}
	x.out = append(b, `]}`...)
	return nil
}

// createPolicy serves POST …/policies.
func (s *Server) createPolicy(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req policyRequest
	if err := x.object(&req); err != nil {
		return err
	}
	// A misspelled member must not make a policy that binds less.
	if err := x.strictly(&req, true); err != nil {
		return err
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayRule("POST …/policies"); err != nil {
		return err
	}
	n := catalog.NewPolicy{Name: req.Name, Table: req.TableName, Expression: req.Expression, Enabled: req.Enabled == nil || *req.Enabled}
	if n.Name == "" {
		return newFault(http.StatusBadRequest, codeBadRequest, "A policy needs a name", "for example {\"name\": \"own orders\"}")
	}
	for _, verb := range gate.Verbs {
		if slices.Contains(req.AppliesTo, verb) || req.AppliesTo == nil && verb == "select" {
			n.AppliesTo = append(n.AppliesTo, verb)
		}
	}
	if len(n.AppliesTo) == 0 || req.AppliesTo != nil && len(n.AppliesTo) != len(req.AppliesTo) {
		return newFault(http.StatusBadRequest, codeBadRequest, "appliesTo is a list of select, insert, update and delete, each once", "leave it out for select alone")
	}
	// Policies that are made at the same time could be right each, and read each other in a circle.
	defer s.ruling.lock(x.database.ID)()
	d, err := s.opt.Catalog.DatabaseByID(x.database.ID)
	if err != nil {
		return err
	}
	x.database = d
	if err := x.do(store.JobFunc(func(tx *store.Tx) error { return x.checkPolicy(tx, &n) })); err != nil {
		return err
	}
	p, err := s.opt.Catalog.CreatePolicy(x.acting(x.r.Context()), d.ID, n)
	if err != nil {
		return err
	}
	x.success()
	x.out = append(appendPolicy(x.out, p), '}')
	return nil
}

// checkPolicy compiles a policy's expression on its table, alone and among the others of the database.
func (x *exchange) checkPolicy(tx *store.Tx, n *catalog.NewPolicy) error {
	kind := ""
	err := tx.Query("SELECT name, type FROM pragma_table_list(?) WHERE schema='main'", textParam(n.Table), func(s *sqlite.Stmt) error {
		n.Table, kind = str(s.Column(0)), str(s.Column(1)) // as it is spelled in the schema
		return nil
	})
	switch {
	case err != nil:
		return err
	case kind == "" || gate.IsSystem(n.Table):
		return unknown(kindUnknownTable, n.Table, "", "no such table: "+n.Table)
	case kind != "table":
		return newFault(http.StatusBadRequest, "policy_invalid", fmt.Sprintf("%s is a %s: policies are for tables", n.Table, kindWord(kind)), "make the policy for the tables that it reads")
	}
	var list []gate.Policy
	if x.database.Policies != nil {
		for _, p := range x.database.Policies.All {
			if p.Enabled && n.Enabled {
				list = append(list, gatePolicy(p))
			}
		}
	}
	list = append(list, gate.Policy{Name: n.Name, Table: n.Table, Expression: n.Expression, AppliesTo: n.AppliesTo})
	sql, err := gate.PolicyQuery(n.Table, n.Expression)
	if err == nil {
		_, err = tx.Compile(sql, x.gate.PermitPolicy)
	}
	if err == nil {
		all := gate.NewPolicies(list)
		var accesses []sqlite.Access
		if accesses, err = tx.Compile(all.Query(n.Table), x.gate.PermitPolicy); err == nil {
			table := all.Unvouched(accesses)
			if table == "" {
				table, err = unvouchedView(tx, &x.gate, all, accesses)
			}
			if table != "" {
				err = &gate.PolicyError{Message: fmt.Sprintf("The expression would read table %q in a way that passes its policies by, such as through a view", table), Hint: "name the table itself"}
			}
		}
	}
	var bad *gate.PolicyError
	if errors.As(err, &bad) {
		return newFault(http.StatusBadRequest, "policy_invalid", bad.Message, bad.Hint)
	}
	var e *sqlite.Error
	if errors.As(err, &e) && e.Cause == nil && e.Code.Primary() == sqlite.CodeError {
		return newFault(http.StatusBadRequest, "policy_invalid", "The expression cannot be a policy of the table: "+e.Message, "it is a boolean SQL expression of the table's columns, for example owner_id = :auth_user_id")
	}
	var refused *gate.Refusal
	if errors.As(err, &refused) {
		return newFault(http.StatusBadRequest, "policy_invalid", "The expression cannot be a policy of the table: "+refused.Message, refused.Hint)
	}
	return err
}

// unvouchedView is a policied table that a view shows which a policy reads. Where JOIN … USING names its columns, nothing of it is reported as the view's.
func unvouchedView(tx *store.Tx, g *gate.Gate, all *gate.Policies, accesses []sqlite.Access) (string, error) {
	for _, name := range all.Sources(accesses) {
		view := false
		err := tx.Query("SELECT 1 FROM main.sqlite_schema WHERE type='view' AND name=? COLLATE NOCASE", textParam(name), func(*sqlite.Stmt) error {
			view = true
			return nil
		})
		if err != nil || !view {
			if err != nil {
				return "", err
			}
			continue
		}
		of, err := tx.Compile(gate.ReadAll(name), g.PermitPolicy)
		if err != nil {
			return "", err
		}
		if table := all.Unvouched(of); table != "" {
			return table, nil
		}
	}
	return "", nil
}

func kindWord(kind string) string {
	switch kind {
	case "view":
		return "view"
	case "virtual":
		return "virtual table"
	}
	return kind + " table"
}

// deletePolicy serves DELETE …/policies/:id.
func (s *Server) deletePolicy(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayRule("DELETE …/policies"); err != nil {
		return err
	}
	p, err := s.opt.Catalog.DeletePolicy(x.acting(x.r.Context()), x.database.ID, unescape(x.param("id")))
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"id":`...)
	b = wire.AppendString(b, p.ID)
	x.out = append(b, `,"deleted":true}}`...)
	return nil
}

func appendPolicy(b []byte, p *catalog.Policy) []byte {
	b = append(b, `{"id":`...)
	b = wire.AppendString(b, p.ID)
	b = append(b, `,"name":`...)
	b = wire.AppendString(b, p.Name)
	b = append(b, `,"tableName":`...)
	b = wire.AppendString(b, p.Table)
	b = append(b, `,"expression":`...)
	b = wire.AppendString(b, p.Expression)
	b = append(b, `,"appliesTo":`...)
	b = appendNames(b, p.AppliesTo)
	b = append(b, `,"enabled":`...)
	b = strconv.AppendBool(b, p.Enabled)
	b = append(b, `,"createdAt":`...)
	b = appendTime(b, p.CreatedAt)
	return append(b, '}')
}
