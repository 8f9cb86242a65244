package gate

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// Policy is a boolean SQL expression that the rows of a table must meet, for callers that policies bind (shared contract,
// tokens.md "Claims and row-level security"; docs/row-level-security.md).
type Policy struct {
	Name       string
	Table      string
	Expression string // :auth_<key> is the claim of that key
	AppliesTo  []string
}

// Verbs are what a policy can apply to.
var Verbs = []string{"select", "insert", "update", "delete"}

// MaxExpression is the most bytes of a policy's expression.
const MaxExpression = 4096

// claimPrefix is how claims are written in an expression.
const claimPrefix = ":auth_"

// Policies are the policies of a database that are switched on. They aren't changed once made: other policies are other Policies,
// which is how what was worked out about a statement is known to be of date.
type Policies struct {
	tables map[string]*tablePolicy
	mark   string // in the names of our own table expressions: nobody knows it
}

// tablePolicy is what holds for one table: all expressions of a verb must be met.
type tablePolicy struct {
	name  string
	exprs map[string][]string
}

// NewPolicies makes the Policies of a list; nil of an empty one. An expression that is none, which CheckPolicy would have refused, hides
// all rows.
func NewPolicies(list []Policy) *Policies {
	if len(list) == 0 {
		return nil
	}
	p := &Policies{tables: map[string]*tablePolicy{}, mark: strings.ToLower(rand.Text())}
	for _, policy := range list {
		table := sqlite.Fold(policy.Table)
		t := p.tables[table]
		if t == nil {
			t = &tablePolicy{name: policy.Table, exprs: map[string][]string{}}
			p.tables[table] = t
		}
		expr, err := withClaims(policy.Expression)
		if err != nil {
			expr = "0"
		}
		for _, verb := range policy.AppliesTo {
			t.exprs[verb] = append(t.exprs[verb], expr)
		}
	}
	return p
}

// Has tells whether a table has policies.
func (p *Policies) Has(table string) bool { return p != nil && p.tables[sqlite.Fold(table)] != nil }

// all joins the expressions of the verbs; all of them must be met. "" if there are none.
func (t *tablePolicy) all(verbs ...string) string {
	var list []string
	for _, v := range verbs {
		for _, e := range t.exprs[v] {
			list = append(list, "("+e+")")
		}
	}
	return strings.Join(list, " AND ")
}

func (t *tablePolicy) covers(verb string) bool { return len(t.exprs[verb]) > 0 }

// PolicyError says why an expression can't be a policy's.
type PolicyError struct{ Message, Hint string }

func (e *PolicyError) Error() string { return e.Message }

// withClaims is the expression with calls of sqlite.ClaimFunction in the place of :auth_<key>. It refuses what isn't an expression by its
// form: what would end the parentheses that it is put into, a comment, a second statement, another parameter.
func withClaims(expr string) (string, error) {
	if len(expr) > MaxExpression {
		return "", &PolicyError{fmt.Sprintf("A policy's expression has at most %d bytes", MaxExpression), ""}
	}
	if strings.ContainsAny(expr, "\n\r\x00") {
		return "", &PolicyError{"A policy's expression is one line", "write spaces in the place of line breaks"}
	}
	tokens, ok := lex(expr)
	if !ok || len(tokens) == 0 {
		return "", &PolicyError{"A policy's expression is empty, or has a quote or parenthesis that isn't closed", "for example owner_id = :auth_user_id"}
	}
	s := &statement{sql: expr, tokens: tokens}
	for i := range tokens {
		if s.qualifies(i, "main") {
			return "", &PolicyError{"A policy's expression doesn't name the schema main: it would pass the policies of other tables by", "leave main. out"}
		}
	}
	var b strings.Builder
	last := 0
	for _, t := range tokens {
		raw := expr[t.start:t.end]
		switch {
		case t.kind == comment:
			return "", &PolicyError{"A policy's expression has no comments", ""}
		case raw[0] == '"':
			// SQLite takes a name in double quotes that it doesn't find for a text, or for a column of whatever is around. In these it doesn't.
			b.WriteString(expr[last:t.start])
			b.WriteString("`" + strings.ReplaceAll(strings.ReplaceAll(raw[1:len(raw)-1], `""`, `"`), "`", "``") + "`")
			last = t.end
		case raw == ";":
			return "", &PolicyError{"A policy's expression has no semicolon", "it is one expression, not a statement"}
		case t.kind == variable:
			key, ok := strings.CutPrefix(raw, claimPrefix)
			if !ok || key == "" || strings.ContainsAny(key, "$:()'") {
				return "", &PolicyError{"A policy's expression has no parameters but claims, :auth_<key>", "for example owner_id = :auth_user_id"}
			}
			b.WriteString(expr[last:t.start])
			fmt.Fprintf(&b, "%s('%s')", sqlite.ClaimFunction, key)
			last = t.end
		}
	}
	b.WriteString(expr[last:])
	return b.String(), nil
}

// PolicyQuery is a statement that reads a table through an expression: it compiles if, and only if, the expression can be a policy of
// that table. It is to be compiled under a Gate's PermitPolicy.
func PolicyQuery(table, expr string) (string, error) {
	with, err := withClaims(expr)
	if err != nil {
		return "", err
	}
	return "SELECT * FROM main." + quote(table) + " WHERE (" + with + ")", nil
}

// Unvouched is a policied table that a policy would read in a way that passes its policies by, such as through a view; "" if there is none.
// The accesses are those of Query.
func (p *Policies) Unvouched(accesses []sqlite.Access) string {
	for i := range accesses {
		a := &accesses[i]
		if t := p.tables[sqlite.Fold(a.Name)]; t != nil && t.covers("select") && a.Action == sqlite.Read && a.Schema != "" && !p.own(a.By) {
			return t.name
		}
	}
	return ""
}

// Sources are the tables and views that the policies read, by the accesses of Query.
func (p *Policies) Sources(accesses []sqlite.Access) (names []string) {
	for i := range accesses {
		if a := &accesses[i]; a.Action == sqlite.Read && p.own(a.By) && !slices.Contains(names, a.Name) {
			names = append(names, a.Name)
		}
	}
	return names
}

// ReadAll is a statement that reads all columns of a table or view itself.
func ReadAll(name string) string { return "SELECT * FROM main." + quote(name) }

// Query is a statement that reads a table through all of the policies.
func (p *Policies) Query(table string) string {
	prefix := p.prefix(false)
	if prefix == "" {
		return ReadAll(table)
	}
	return "WITH " + prefix + " SELECT * FROM " + quote(table)
}

// PermitPolicy decides on an access of a policy: what Permit decides, and that it may ask for claims.
func (g *Gate) PermitPolicy(a sqlite.Access) error {
	if a.Action == sqlite.Function && a.Detail == sqlite.ClaimFunction {
		return nil
	}
	if a.Action == sqlite.Read && (strings.EqualFold(a.Name, QueryLogTable) || statistics(a.Name) || hasPrefix(a.Name, "pragma_")) {
		return RefuseName(a.Name)
	}
	return g.Permit(a)
}

// quote makes an identifier of a name.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
