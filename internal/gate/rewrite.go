package gate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// bound is how a statement runs for callers that policies bind. It is worked out once for a statement and Policies.
type bound struct {
	policies *Policies
	err      error  // it doesn't run
	plain    string // what runs in its place; "" for the statement itself
	fenced   string // the same for when it fails; see Gate.Fenced
	check    bool   // the last column of plain tells whether a written row meets the policies
	checked  string // the table of it

	target  string       // the table that the statement itself writes to, folded
	twinned string       // our table expressions of views
	views   []string     // the views that have one, folded
	texts   []*statement // the client's and those of its views
	rows    string       // our table expression of its rows that may be written to; "" without
}

// mixed is the Memo of a statement that runs in the place of another.
type mixed struct {
	bound *bound
	err   error
}

// bind works out how a statement runs under policies.
func bind(v *verdict, s *sqlite.Stmt, p *Policies) *bound {
	b := &bound{policies: p}
	if off("policy") {
		return b
	}
	switch {
	case v.rows != "" && !off("policy of the file"):
		b.err = refuseHidden(v.rows+" tells of rows that policies hide", "use an admin token without claims")
	case v.schema && !off("policy of the schema"):
		b.err = refuseHidden("A token that policies bind cannot change the schema", "use an admin token without claims")
	default:
		b.err = b.rewrite(v, s)
	}
	return b
}

// refuseHidden is the refusal of what can't be vouched for.
func refuseHidden(message, hint string) *Refusal {
	return &Refusal{Code: CodePolicy, Message: message, Hint: hint}
}

func (b *bound) rewrite(v *verdict, s *sqlite.Stmt) error {
	if err := b.virtual(s); err != nil {
		return err
	}
	policied := ""
	var views []string
	for i := range v.touches {
		t := &v.touches[i]
		if b.policies.tables[t.table] != nil {
			policied = t.name
		} else if s.Kind(t.name) == sqlite.View {
			views = append(views, t.name)
		}
	}
	if policied == "" {
		return nil
	}
	if s.Explain {
		return refuseHidden(fmt.Sprintf("A plan of a statement on table %q could tell of rows that policies hide", policied), "use an admin token without claims")
	}
	st, ok := lexStatement(s.SQL())
	if !ok || len(st.tokens) == 0 {
		return errUnvouched(policied)
	}
	for i := range st.tokens {
		if st.qualifies(i, "main") && !off("policy of a qualifier") {
			return refuseHidden(fmt.Sprintf("The qualifier main. would pass the policies of table %q by", policied), "leave main. out: the server knows one schema only")
		}
	}
	b.texts = append(b.texts, st)
	m := &mixing{bound: b, s: s, statement: st}
	if err := m.head(); err != nil {
		return err
	}
	if err := m.twins(views); err != nil {
		return err
	}
	if err := m.writes(); err != nil {
		return err
	}
	b.plain, b.fenced = m.compose(false), m.compose(true)
	return nil
}

func errUnvouched(table string) *Refusal {
	return refuseHidden(fmt.Sprintf("The statement reads table %q in a way for which its policies cannot be vouched", table),
		"read the table by its name alone, in a SELECT or a common table expression")
}

// Our table expressions: one that reads a policied table, which the authorizer then names as the reader, and one under
// the table's own name; see DESIGN.md.
func (p *Policies) reader(i int) string { return fmt.Sprintf("_r%d_%s", i, p.mark) }
func (p *Policies) rows() string        { return "_w_" + p.mark }

// own tells whether a reader that the authorizer names is one of our table expressions.
func (p *Policies) own(by string) bool { return strings.HasSuffix(by, p.mark) }

// sorted are the policied tables in a fixed order.
func (p *Policies) sorted() []*tablePolicy {
	list := make([]*tablePolicy, 0, len(p.tables))
	for _, t := range p.tables {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *tablePolicy) int { return strings.Compare(a.name, b.name) })
	return list
}

// prefix are the table expressions of all policied tables: a policy may read another table that has some. Those that nobody
// names cost SQLite nothing.
func (p *Policies) prefix(fenced bool) string {
	how := "NOT MATERIALIZED"
	if fenced {
		how = "MATERIALIZED"
	}
	var b strings.Builder
	for i, t := range p.sorted() {
		if !t.covers("select") {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s AS %s (SELECT * FROM main.%s WHERE %s), %s AS NOT MATERIALIZED (SELECT * FROM %s)",
			p.reader(i), how, quote(t.name), t.all("select"), quote(t.name), p.reader(i))
	}
	return b.String()
}

// mixing puts policies into a statement.
type mixing struct {
	*bound
	*statement
	s *sqlite.Stmt

	verb   int      // the token that begins the statement proper
	ctes   []string // table expressions beside the policies'
	first  int      // where the client's text begins: behind its own WITH
	joined bool     // it has one
	edits  []edit
}

// edit is text to put into the client's.
type edit struct {
	at            int
	plain, fenced string
}

// head finds the statement's own table expressions. They stand beside ours, so none may take the name of anything that ours, or a view's,
// could mean.
func (m *mixing) head() error {
	if !m.is(0, "WITH") {
		m.first = m.tokens[0].start
		return nil
	}
	i := 1
	if m.is(i, "RECURSIVE") {
		i++
	}
	m.first, m.joined = m.tokens[min(i, len(m.tokens)-1)].start, true
	for {
		name := m.name(i)
		if name == "" {
			return errUnvouched(name)
		}
		if (m.s.Kind(name) != sqlite.NoTable || m.policies.own(name)) && !off("policy of a name") {
			return refuseHidden(fmt.Sprintf("The table expression %q has the name of a table or view, which policies of the database could mean", name), "give the table expression another name")
		}
		i++
		if m.raw(i) == "(" {
			i = m.closed(i)
		}
		if !m.is(i, "AS") {
			return errUnvouched(name)
		}
		i++
		if m.is(i, "NOT") {
			i++
		}
		if m.is(i, "MATERIALIZED") {
			i++
		}
		if m.raw(i) != "(" {
			return errUnvouched(name)
		}
		i = m.closed(i)
		if m.raw(i) != "," {
			m.verb = i
			return nil
		}
		i++
	}
}

// closed is the token behind the parenthesis that closes the one at i.
func (m *mixing) closed(i int) int {
	depth := m.tokens[i].depth
	for i++; i < len(m.tokens); i++ {
		if m.tokens[i].depth == depth && m.raw(i) == ")" {
			return i + 1
		}
	}
	return i
}

// twins puts a table expression in the place of each view that the statement reads: a view's text means the tables themselves.
func (m *mixing) twins(views []string) error {
	for _, view := range views {
		var sql string
		if err := m.s.Look("SELECT sql FROM main.sqlite_schema WHERE type='view' AND name=?1 COLLATE NOCASE", view, func(s *sqlite.Stmt) {
			sql = string(s.Column(0).Bytes)
		}); err != nil {
			return err
		}
		v, ok := lexStatement(sql)
		if !ok {
			return errUnvouched(view)
		}
		for i := range v.tokens {
			if v.qualifies(i, "main") && !off("policy of a qualifier") {
				return errUnvouched(view)
			}
		}
		m.texts, m.views = append(m.texts, v), append(m.views, sqlite.Fold(view))
		as := v.find(0, "AS")
		if as < 0 || as+1 >= len(v.tokens) {
			return errUnvouched(view)
		}
		columns := ""
		if v.raw(as-1) == ")" {
			for i := as - 1; i >= 0; i-- {
				if v.raw(i) == "(" && v.tokens[i].depth == 0 {
					columns = sql[v.tokens[i].start:v.tokens[as-1].end]
					break
				}
			}
		}
		m.ctes = append(m.ctes, fmt.Sprintf("%s%s AS NOT MATERIALIZED (%s)", quote(view), columns, sql[v.tokens[as+1].start:v.end()]))
	}
	for _, twin := range m.ctes {
		m.twinned += ", " + twin
	}
	return nil
}

// writes adds what holds for the rows of the table that the statement writes to.
func (m *mixing) writes() error {
	i := m.verb
	replaces := m.is(i, "REPLACE")
	insert := replaces || m.is(i, "INSERT")
	switch {
	case insert, m.is(i, "UPDATE"):
		i++
		if m.is(i, "OR") {
			replaces = replaces || m.is(i+1, "REPLACE")
			i += 2
		}
		if insert {
			i++ // INTO
		}
	case m.is(i, "DELETE"):
		i += 2 // FROM
	default:
		return nil
	}
	if m.raw(i+1) == "." {
		i += 2
	}
	m.target = m.name(i)
	t := m.policies.tables[m.target]
	if t == nil {
		return nil
	}
	row := m.raw(i)
	if m.tokens[i].kind == text {
		row = quote(strings.ReplaceAll(row[1:len(row)-1], "''", "'"))
	}
	if m.is(i+1, "AS") {
		row = m.raw(i + 2)
		i += 2
	}
	if err := m.unmistakable(t, i, insert); err != nil {
		return err
	}
	returning := m.find(i, "RETURNING")
	var verbs []string
	switch {
	case insert:
		verbs = []string{"insert"}
		for j := i; ; {
			if j = m.find(j, "DO"); j < 0 || returning >= 0 && j > returning {
				break
			}
			if j++; m.is(j, "UPDATE") {
				verbs = []string{"insert", "update"}
				if err := m.filter(t, row, "update", j); err != nil {
					return err
				}
			}
		}
	case m.is(m.verb, "UPDATE"):
		verbs = []string{"update"}
	default:
		verbs = []string{"delete"}
	}
	for _, verb := range verbs {
		if returning >= 0 && t.covers("select") && !t.covers(verb) && !off("policy of RETURNING") {
			return refuseHidden(fmt.Sprintf("RETURNING could show rows of table %q that policies hide: none of them applies to %s", t.name, strings.ToUpper(verb)),
				fmt.Sprintf("leave RETURNING out, or have the policy apply to %s: appliesTo [\"select\",%q]", verb, verb))
		}
	}
	if (replaces || m.replacing(t)) && (t.covers("insert") || t.covers("update") || t.covers("delete")) && !off("policy of REPLACE") {
		return refuseHidden(fmt.Sprintf("REPLACE could remove rows of table %q that policies hide", t.name), "use INSERT … ON CONFLICT (…) DO UPDATE SET …")
	}
	if !insert {
		if err := m.filter(t, row, verbs[0], i); err != nil {
			return err
		}
	}
	if check := t.all(slices.DeleteFunc(verbs, func(v string) bool { return v == "delete" })...); check != "" && !off("policy of a new row") {
		check = "(" + check + ") IS TRUE"
		m.check, m.checked = true, t.name
		if returning >= 0 {
			m.edits = append(m.edits, edit{m.end(), ", " + check, ", " + check})
		} else {
			m.edits = append(m.edits, edit{m.end(), " RETURNING " + check, " RETURNING " + check})
		}
	}
	return nil
}

// unmistakable refuses a statement in which the name of the target's row, token i, could mean something else where a filter uses it: another
// table of UPDATE … FROM under that name, or the row that an upsert could not insert.
func (m *mixing) unmistakable(t *tablePolicy, i int, insert bool) error {
	name := m.name(i)
	confused := insert && name == "excluded"
	if m.is(m.verb, "UPDATE") {
		from := m.find(i, "FROM")
		last := m.find(i, "WHERE", "RETURNING")
		if last < 0 {
			last = len(m.tokens)
		}
		for j := from + 1; from >= 0 && j < last; j++ {
			if m.raw(j) == "(" && m.is(j+1, "SELECT", "VALUES") {
				j = m.closed(j) - 1 // what is named in there isn't seen from outside
				continue
			}
			named := m.is(j-1, "AS") || m.raw(j-1) == ")" || m.name(j-1) != "" && !m.is(j-1, "FROM", "JOIN")
			// An alias of the target can be the whole name of another table, or of a table expression; the target's own name SQLite refuses there.
			named = named || m.is(i-1, "AS") && m.raw(j+1) != "."
			confused = confused || named && m.name(j) == name
		}
	}
	if confused && !off("policy of a row's name") {
		return refuseHidden(fmt.Sprintf("The name %q could mean another row than the one of table %q that is written", name, t.name), "choose another alias")
	}
	return nil
}

// filter leaves rows that the policies hide out of what an UPDATE or DELETE changes; i is a token before its WHERE.
func (m *mixing) filter(t *tablePolicy, row, verb string, i int) error {
	if !t.covers(verb) || off("policy of an old row") {
		return nil
	}
	keys, err := m.keys(t)
	if err != nil {
		return err
	}
	if m.rows == "" {
		var names []string
		for k := range keys {
			names = append(names, fmt.Sprintf("k%d", k))
		}
		m.rows = fmt.Sprintf("%s(%s) AS NOT MATERIALIZED (SELECT %s FROM main.%s WHERE %s)",
			m.policies.rows(), strings.Join(names, ","), strings.Join(keys, ","), quote(t.name), t.all(verb, "select"))
		m.ctes = append(m.ctes, m.rows)
	}
	var same []string
	for k, key := range keys {
		same = append(same, fmt.Sprintf("%s.k%d=%s.%s", m.policies.rows(), k, row, key))
		if key[0] == '"' {
			// The key may be unique by another collation than its column's, which the index is found by.
			same = append(same, fmt.Sprintf("%s.k%d=%s.%s COLLATE BINARY", m.policies.rows(), k, row, key))
		}
	}
	seen := fmt.Sprintf("EXISTS (SELECT 1 FROM %s WHERE %s)", m.policies.rows(), strings.Join(same, " AND "))

	last := len(m.tokens)
	if end := m.find(i, "ON", "RETURNING"); end >= 0 && m.is(m.verb, "INSERT", "REPLACE") {
		last = end
	} else if end := m.find(i, "RETURNING"); end >= 0 {
		last = end
	}
	where := m.find(i, "WHERE")
	if where < 0 || where >= last {
		m.edits = append(m.edits, edit{m.tokens[last-1].end, " WHERE " + seen, " WHERE " + seen})
		return nil
	}
	m.edits = append(m.edits,
		edit{m.tokens[where].end, " (", " CASE WHEN " + seen + " THEN ("},
		edit{m.tokens[last-1].end, ") AND " + seen, ") ELSE 0 END"})
	return nil
}

// keys are the columns that tell the rows of a table apart, as SQL.
func (m *mixing) keys(t *tablePolicy) ([]string, error) {
	var primary []string
	taken := map[string]bool{}
	err := m.s.Look("SELECT name, pk FROM pragma_table_xinfo(?1, 'main') ORDER BY pk", t.name, func(s *sqlite.Stmt) {
		name := string(s.Column(0).Bytes)
		taken[sqlite.Fold(name)] = true
		if s.Column(1).Int > 0 {
			primary = append(primary, quote(name))
		}
	})
	if err != nil {
		return nil, err
	}
	without := false
	err = m.s.Look("SELECT wr FROM pragma_table_list(?1) WHERE schema='main'", t.name, func(s *sqlite.Stmt) { without = s.Column(0).Int != 0 })
	if err != nil {
		return nil, err
	}
	if without {
		return primary, nil
	}
	for _, name := range []string{"rowid", "_rowid_", "oid"} {
		if !taken[name] {
			return []string{name}, nil
		}
	}
	return nil, errUnvouched(t.name)
}

// replacing tells whether the table's definition may have rows replaced.
func (m *mixing) replacing(t *tablePolicy) bool {
	found := true // what can't be read
	_ = m.s.Look("SELECT sql FROM main.sqlite_schema WHERE type='table' AND name=?1 COLLATE NOCASE", t.name, func(s *sqlite.Stmt) {
		sql, ok := lexStatement(string(s.Column(0).Bytes))
		if !ok {
			return
		}
		found = false
		for i := range sql.tokens {
			// That of NOT NULL gives the column its default, and removes nothing.
			found = found || sql.is(i, "CONFLICT") && sql.is(i+1, "REPLACE") && !(sql.is(i-3, "NOT") && sql.is(i-2, "NULL"))
		}
	})
	return found
}

// compose is the statement that runs.
func (m *mixing) compose(fenced bool) string {
	var b strings.Builder
	prefix := m.policies.prefix(fenced)
	for _, cte := range m.ctes {
		if prefix != "" {
			prefix += ", "
		}
		prefix += cte
	}
	if prefix != "" {
		b.WriteString("WITH " + prefix)
		if m.joined {
			b.WriteByte(',')
		}
		b.WriteByte(' ')
	} else if m.joined {
		b.WriteString("WITH ")
	}
	slices.SortStableFunc(m.edits, func(a, b edit) int { return a.at - b.at })
	at := m.first
	for _, e := range m.edits {
		b.WriteString(m.sql[at:e.at])
		if fenced {
			b.WriteString(e.fenced)
		} else {
			b.WriteString(e.plain)
		}
		at = e.at
	}
	b.WriteString(m.sql[at:m.end()])
	return b.String()
}
