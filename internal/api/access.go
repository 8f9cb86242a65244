package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// What a token may do beside running statements, on which the gate decides.

// caller is the token as the gate knows it, in the request's database.
func (x *exchange) caller() gate.Caller {
	t := x.token
	c := gate.Caller{TokenID: t.ID, Role: t.Role}
	if tables, scoped := t.Tables(); scoped {
		c.Scope = tables
	}
	if c.Policies = boundBy(t, x.database); c.Policies != nil && t.Claims != nil {
		c.Claims = t.Claims
	}
	// On a branch of its own, who may write may change the schema too: that is what branches are for.
	// And so does an app in the database that is its own.
	if t.Database == x.database.ID && (x.database.IsBranch() || t.OAuth != nil) && c.Whole() && !c.Bound() && c.Level() == gate.LevelWrite {
		c.Role = gate.RoleAdmin
	}
	return c
}

// boundBy are the policies of a database that bind a token: they bind every one but an admin's without claims.
func boundBy(t *catalog.Token, d *catalog.Database) *gate.Policies {
	if d.Policies == nil || t.Claims == nil && gate.LevelOf(t.Role) == gate.LevelAdmin {
		return nil
	}
	return policiesOf(d)
}

// policiesOf are the policies of a database that are switched on, whoever calls; nil for none.
func policiesOf(d *catalog.Database) *gate.Policies {
	if d.Policies == nil {
		return nil
	}
	p, _ := d.Policies.Memo(func() any {
		var list []gate.Policy
		for _, p := range d.Policies.All {
			if p.Enabled {
				list = append(list, gatePolicy(p))
			}
		}
		return gate.NewPolicies(list)
	}).(*gate.Policies)
	return p
}

func gatePolicy(p *catalog.Policy) gate.Policy {
	return gate.Policy{Name: p.Name, Table: p.Table, Expression: p.Expression, AppliesTo: p.AppliesTo}
}

// errOfApp refuses what outlives a token to one that ends when its app is disconnected.
var errOfApp = newFault(http.StatusForbidden, codeForbidden, "An app's token makes no branches and no tokens", "the user's own token does")

// needAdmin refuses a token of a lower role; what is what it cannot do.
func (x *exchange) needAdmin(what string) error {
	if gate.LevelOf(x.token.Role) < gate.LevelAdmin {
		return gate.RefuseRole(x.token.Role, what, gate.LevelAdmin)
	}
	return nil
}

// needUnscoped refuses a token of a lower role than admin, and one that is held to a database or to tables.
func (x *exchange) needUnscoped(what string) error {
	if err := x.needAdmin(what); err != nil {
		return err
	}
	if x.token.Database != "" {
		return errNotScoped
	}
	if x.token.Claims != nil {
		return newFault(http.StatusForbidden, gate.CodePolicy, "Token claims hold it to what policies allow: it cannot run "+what, "use a token without claims")
	}
	return x.needAllTables(what)
}

// needAllRows refuses a token from which policies hide rows of the request's database, and one that is held to some tables.
func (x *exchange) needAllRows(what string) error {
	if boundBy(x.token, x.database) != nil {
		return newFault(http.StatusForbidden, gate.CodePolicy, "Policies of the database bind the token: it cannot run "+what, "use an admin token without claims")
	}
	return x.needAllTables(what)
}

// needAllTables refuses a token that is held to some tables.
func (x *exchange) needAllTables(what string) error {
	if x.token.TableScope != nil {
		return newFault(http.StatusForbidden, gate.CodeScope, "Token scope does not include all tables: it cannot run "+what, "use a token without tableScope")
	}
	return nil
}

// hiddenName looks in a statement that could not be compiled for a table that the caller may not know of: else the
// engine's words about it, "no such column", would tell of its columns.
func hiddenName(tx *store.Tx, c *gate.Caller, sql []byte) error {
	if c.Whole() {
		return nil
	}
	folded := sqlite.Fold(string(sql))
	for _, name := range namesOf(tx, objectsSQL) {
		if !c.Sees(name) && !gate.IsSystem(name) && mentions(folded, sqlite.Fold(name)) {
			return gate.RefuseTable(name)
		}
	}
	return nil
}

// mentions tells whether a name could stand in a statement, in quotes of any kind, in texts and comments too: what is taken for
// a name and isn't is only refused.
func mentions(sql, name string) bool {
	plain := strings.IndexFunc(name, func(r rune) bool { return r < 0x80 && !wordByte(byte(r)) }) < 0
	for _, written := range []string{name, strings.ReplaceAll(name, `"`, `""`), strings.ReplaceAll(name, "`", "``"), strings.ReplaceAll(name, "'", "''")} {
		for rest, at := sql, 0; ; {
			i := strings.Index(rest[at:], written)
			if i < 0 {
				break
			}
			i += at
			end := i + len(written)
			if !plain || (i == 0 || !wordByte(rest[i-1])) && (end == len(rest) || !wordByte(rest[end])) {
				return true
			}
			at = i + 1
		}
	}
	return false
}

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

const objectsSQL = "SELECT name FROM sqlite_schema WHERE type IN ('table','view')"

// schemaNames are the tables and views of a schema by name, each with its type as PRAGMA table_list has it, and which table
// refers to which.
type schemaNames struct {
	types      map[string]string
	references map[string]bool
	policied   *gate.Policies // which a table that is renamed would lose; nil if none is
}

const (
	typesSQL      = `SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'`
	referencesSQL = `SELECT m.name || char(0) || f."table" FROM sqlite_schema m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'`
)

// namesBefore are the names before a statement that changes the schema in a way that only running it tells: nil for any other.
func (x *exchange) namesBefore(tx *store.Tx, s *sqlite.Stmt) (*schemaNames, error) {
	c := &x.gate.Caller
	if !s.Alters || c.Whole() && !slices.ContainsFunc(s.Accesses, func(a sqlite.Access) bool {
		return a.Action == sqlite.AlterTable || a.Action == sqlite.CreateVTable
	}) {
		return nil, nil
	}
	n := &schemaNames{types: map[string]string{}, references: map[string]bool{}}
	if slices.ContainsFunc(s.Accesses, func(a sqlite.Access) bool { return a.Action == sqlite.AlterTable }) {
		n.policied = policiesOf(x.database)
	}
	err := tx.Query(typesSQL, nil, func(s *sqlite.Stmt) error {
		n.types[str(s.Column(0))] = str(s.Column(1))
		return nil
	})
	if err == nil && !c.Whole() {
		for _, pair := range namesOf(tx, referencesSQL) {
			n.references[pair] = true
		}
	}
	return n, err
}

// refuseRenamed refuses to give another name to a table that has policies.
func refuseRenamed(name string) error {
	return &gate.Refusal{Code: gate.CodePolicy, Message: fmt.Sprintf("Table %q has row-level policies, which would not follow it to another name", name),
		Hint: "delete the policies first, and make them anew for the new name"}
}

// refuseNew looks afterwards, in the same savepoint: at the new name of ALTER TABLE … RENAME; at a table that a virtual table takes
// for its own by the name, which nobody could write to any more; and for a scoped caller at a view of what it may not read, whose
// columns would be told, and at a foreign key to a table that it may not touch, which would tell of its keys.
func (n *schemaNames) refuseNew(tx *store.Tx, g *gate.Gate) error {
	if n == nil {
		return nil
	}
	c := &g.Caller
	// First those that would answer in the place of what is asked below.
	for _, name := range namesOf(tx, `SELECT name FROM sqlite_schema WHERE name LIKE 'pragma\_%' ESCAPE '\'`) {
		if _, there := n.types[name]; !there {
			return gate.RefuseName(name)
		}
	}
	var views []string
	var made []approval.Write
	left := map[string]bool{}
	err := tx.Query(typesSQL, nil, func(s *sqlite.Stmt) error {
		left[str(s.Column(0))] = true
		name, kind := str(s.Column(0)), str(s.Column(1))
		was, there := n.types[name]
		switch {
		case there && kind == "shadow" && was != kind:
			return &gate.Refusal{Code: gate.CodeSystem, Message: fmt.Sprintf("The virtual table would take the table %s for its own", name), Hint: "choose another name for it"}
		case there || kind == "shadow":
		case gate.ReservedName(name):
			return gate.RefuseName(name)
		case !c.Sees(name):
			return gate.RefuseTable(name)
		default:
			made = append(made, approval.Write{Table: name, Op: approval.DDL})
			if kind == "view" {
				views = append(views, name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !gate.Off("rule of a new name") {
		if err := g.JudgeWrites(made); err != nil {
			return err
		}
	}
	for name := range n.types {
		if n.policied.Has(name) && !left[name] {
			return refuseRenamed(name)
		}
	}
	if c.Whole() {
		return nil
	}
	for _, name := range views {
		var refused *gate.Refusal
		st, _, err := tx.Prepare([]byte("SELECT * FROM main." + quoteName(name)))
		if errors.As(err, &refused) {
			return refused
		}
		if err == nil {
			st.Done()
		}
	}
	for _, pair := range namesOf(tx, referencesSQL) {
		child, parent, _ := strings.Cut(pair, "\x00")
		if !n.references[pair] && c.Sees(child) && !c.Sees(parent) {
			return gate.RefuseTable(parent)
		}
	}
	return nil
}
