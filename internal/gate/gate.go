package gate

import (
	"fmt"
	"strings"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/sqlite"
)

// Gate judges the statements of one request. Its zero value refuses all of them.
type Gate struct {
	Caller Caller
	// Batch says that the statement is part of a batch in one transaction, where constraints may be deferred.
	Batch bool

	Rules *approval.Rules // which writes people look at first; nil for none
	Pass  approval.Pass   // what an approval lets through

	// Whole says that the request is one piece of work of many statements: what people have to approve is gathered, and told at its end.
	Whole bool

	// Looks says that what runs is undone: rules stop nothing, and rows are counted for them.
	Looks bool
	// Seen, if it isn't nil, is what an approved write would have changed when people approved it.
	Seen []approval.Count

	passed []approval.Hit // of the request, so far
	waits  []approval.Hit // for people, gathered
	tally  approval.Tally // rows that its statements changed
	rows   []rows         // those of the one that runs
}

// Judge decides whether the caller may run the statement.
func (g *Gate) Judge(s *sqlite.Stmt) error {
	v, ok := s.Memo.(*verdict)
	if !ok {
		v = classify(s)
		s.Memo = v
	}
	if level := g.Caller.Level(); level < v.need && !off("role") {
		return RefuseRole(g.Caller.Role, v.verb, v.need)
	}
	if v.temp {
		return errTemp
	}
	if v.log && !off("log") && (g.Caller.Level() < LevelAdmin || !g.Caller.Whole() || g.Caller.Bound()) { // it shows what every token ran
		r := RefuseRole(g.Caller.Role, "SELECT FROM "+QueryLogTable, LevelAdmin)
		if g.Caller.Level() == LevelAdmin {
			r = &Refusal{Code: CodeScope, Message: "Token scope does not include all tables, which " + QueryLogTable + " needs"}
		}
		if g.Caller.Level() == LevelAdmin && g.Caller.Whole() {
			r = refuseHidden(QueryLogTable+" tells of rows that policies hide", "")
		}
		r.Hint = "GET …/query-log shows a token its own rows"
		return r
	}
	if !g.Caller.Whole() {
		if err := v.inScope(s, g.Caller.Scope); err != nil {
			return err
		}
	}
	if v.defers && !g.Batch {
		return &Refusal{Code: CodePragma, Message: "PRAGMA defer_foreign_keys has an effect only inside a transaction", Request: true,
			Hint: "send it as a statement of a batch with \"transaction\": true"}
	}
	if g.Rules != nil {
		return g.judgeRules(s, v)
	}
	return nil
}

// inScope decides on a statement of a token with a scope.
func (v *verdict) inScope(s *sqlite.Stmt, scope Scope) error {
	for i := range v.touches {
		t := &v.touches[i]
		if !scope.Has(t.table) && !v.checked(s, t) && !off("table") {
			return RefuseTable(t.name)
		}
	}
	if v.whole != "" && !off("whole") {
		return &Refusal{Code: CodeScope, Message: fmt.Sprintf("Token scope does not include all tables, which %s needs", v.whole),
			Hint: "use a token without tableScope"}
	}
	return nil
}

// PathColumn is the column of a judged statement's rows that holds a path of the server, which nobody may see; -1 for
// none.
func PathColumn(s *sqlite.Stmt) int {
	if v, ok := s.Memo.(*verdict); ok && v.path {
		return 2
	}
	return -1
}

// Permit decides on one access of a statement that is being compiled or taken from the cache: what nobody may, and, since
// they act then, or run inside a statement, a scoped caller's pragmas.
func (g *Gate) Permit(a sqlite.Access) error {
	if err := permit(a); err != nil || a.Action != sqlite.Pragma || g.Caller.Whole() {
		return err
	}
	use := pragmas[sqlite.Fold(a.Name)]
	if g.Caller.Level() < use.need && !off("role") {
		return RefuseRole(g.Caller.Role, "PRAGMA "+sqlite.Fold(a.Name), use.need)
	}
	// A number is how many problems to tell of, not a table.
	if number := strings.Trim(a.Detail, "+-0123456789") == ""; use.scope == ofTable && (number || !g.Caller.Scope.Has(a.Detail)) && !off("pragma of a table") {
		if number {
			return &Refusal{Code: CodeScope, Message: fmt.Sprintf("Token scope does not include all tables, which PRAGMA %s without a table needs", sqlite.Fold(a.Name)),
				Hint: "name a table of the token's scope as its argument"}
		}
		return RefuseTable(a.Detail)
	}
	return nil
}

func permit(a sqlite.Access) error {
	if strings.EqualFold(a.Schema, "temp") && !ofAlter(a) && !off("temp") {
		return errTemp // CREATE TABLE temp.x has the action of an ordinary CREATE TABLE
	}
	switch a.Action {
	case sqlite.Select, sqlite.Recursive:
		return nil
	case sqlite.Read:
		return permitRead(a.Name)
	case sqlite.Insert, sqlite.Update, sqlite.Delete:
		return permitWrite(a)
	case sqlite.CreateTable, sqlite.CreateView, sqlite.CreateTrigger, sqlite.CreateIndex:
		return permitNew(a.Name)
	case sqlite.DropTable, sqlite.DropView, sqlite.DropTrigger, sqlite.DropIndex, sqlite.DropVTable:
		return permitOld(a.Name)
	case sqlite.CreateVTable:
		if err := permitNew(a.Name); err != nil {
			return err
		}
		return permitModule(a.Detail)
	case sqlite.AlterTable:
		return permitOld(a.Detail)
	case sqlite.Analyze, sqlite.Reindex:
		return nil
	case sqlite.Function:
		return permitFunction(a.Detail)
	case sqlite.Pragma:
		return permitPragma(a.Name, a.Detail)
	case sqlite.Transaction, sqlite.Savepoint:
		if off("transaction") {
			return nil
		}
		return &Refusal{Code: CodeTransaction, Request: true,
			Message: "Transaction statements (BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE) can't be sent: the connection is shared",
			Hint:    "send the statements together as a batch with \"transaction\": true"}
	case sqlite.Attach, sqlite.Detach:
		if off("attach") {
			return nil
		}
		return &Refusal{Code: CodeAttach, Message: "ATTACH, DETACH and VACUUM INTO are not allowed: a database sees no other file"}
	case sqlite.CreateTempIndex, sqlite.CreateTempTable, sqlite.CreateTempTrigger, sqlite.CreateTempView,
		sqlite.DropTempIndex, sqlite.DropTempTable, sqlite.DropTempTrigger, sqlite.DropTempView:
		if off("temp") {
			return nil
		}
		return errTemp
	}
	return &Refusal{Code: CodeNotAllowed, Message: "The statement is not allowed"}
}

// ofAlter tells whether SQLite's own ALTER TABLE makes the access: it looks for temporary objects that name the table,
// of which there are none.
func ofAlter(a sqlite.Access) bool {
	return (a.Action == sqlite.Update || a.Action == sqlite.Read) && schemaTable(a.Name)
}

var errTemp = &Refusal{Code: CodeTemp, Message: "Temporary objects are not allowed: the connection is shared by all callers",
	Hint: "use a common table expression (WITH …), or an ordinary table that you drop afterwards"}
