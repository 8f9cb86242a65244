package gate

import (
	"fmt"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// Role is what a token may do.
type Role string

// RoleAdmin may do everything that a tenant may.
const RoleAdmin Role = "admin"

// Caller is who asks, as far as the decision needs it.
type Caller struct {
	TokenID string
	Role    Role
}

// Gate judges the statements of one request. Its zero value refuses all of them.
type Gate struct {
	Caller Caller
	// Batch says that the statement is part of a batch in one transaction, where constraints may be deferred.
	Batch bool
}

// verdict is what Judge needs to know of a statement, worked out once and kept with it.
type verdict struct {
	defers bool // it switches deferred foreign keys
	path   bool // its third column is a path of the server
	temp   bool // it reads the schema of temporary objects, which only SQLite's own ALTER TABLE may
}

// Judge decides whether the caller may run the statement.
func (g *Gate) Judge(s *sqlite.Stmt) error {
	v, ok := s.Memo.(*verdict)
	if !ok {
		v = classify(s)
		s.Memo = v
	}
	if g.Caller.Role != RoleAdmin {
		return &Refusal{Code: CodeRole, Message: fmt.Sprintf("Token role %q cannot run this statement", g.Caller.Role)}
	}
	if v.temp {
		return errTemp
	}
	if v.defers && !g.Batch {
		return &Refusal{Code: CodePragma, Message: "PRAGMA defer_foreign_keys has an effect only inside a transaction", Request: true,
			Hint: "send it as a statement of a batch with \"transaction\": true"}
	}
	return nil
}

func classify(s *sqlite.Stmt) *verdict {
	v := &verdict{}
	alters := false
	for i := range s.Accesses {
		a := &s.Accesses[i]
		if a.Action == sqlite.Pragma && strings.EqualFold(a.Name, "defer_foreign_keys") {
			v.defers = true
		}
		if a.Action == sqlite.Pragma && strings.EqualFold(a.Name, "database_list") && !s.Explain {
			v.path = true
		}
		alters = alters || a.Action == sqlite.AlterTable
		v.temp = v.temp || hasPrefix(a.Name, "sqlite_temp_")
	}
	v.temp = v.temp && !alters
	return v
}

// PathColumn is the column of a judged statement's rows that holds a path of the server, which nobody may see; -1 for
// none.
func PathColumn(s *sqlite.Stmt) int {
	if v, ok := s.Memo.(*verdict); ok && v.path {
		return 2
	}
	return -1
}

// Permit decides on one access of a statement that is being compiled, whoever calls.
func (g *Gate) Permit(a sqlite.Access) error { return permit(a) }

func permit(a sqlite.Access) error {
	if strings.EqualFold(a.Schema, "temp") && !ofAlter(a) {
		return errTemp // CREATE TABLE temp.x has the action of an ordinary CREATE TABLE
	}
	switch a.Action {
	case sqlite.Select, sqlite.Recursive:
		return nil
	case sqlite.Read:
		return permitRead(a.Name)
	case sqlite.Insert, sqlite.Update, sqlite.Delete:
		return permitWrite(a)
	case sqlite.CreateTable, sqlite.CreateView, sqlite.CreateTrigger, sqlite.CreateIndex,
		sqlite.DropTable, sqlite.DropView, sqlite.DropTrigger, sqlite.DropIndex, sqlite.DropVTable:
		return permitName(a.Name)
	case sqlite.CreateVTable:
		if err := permitName(a.Name); err != nil {
			return err
		}
		return permitModule(a.Detail)
	case sqlite.AlterTable:
		return permitName(a.Detail)
	case sqlite.Analyze, sqlite.Reindex:
		return nil
	case sqlite.Function:
		return permitFunction(a.Detail)
	case sqlite.Pragma:
		return permitPragma(a.Name, a.Detail)
	case sqlite.Transaction, sqlite.Savepoint:
		return &Refusal{Code: CodeTransaction, Request: true,
			Message: "Transaction statements (BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE) can't be sent: the connection is shared",
			Hint:    "send the statements together as a batch with \"transaction\": true"}
	case sqlite.Attach, sqlite.Detach:
		return &Refusal{Code: CodeAttach, Message: "ATTACH, DETACH and VACUUM INTO are not allowed: a database sees no other file"}
	case sqlite.CreateTempIndex, sqlite.CreateTempTable, sqlite.CreateTempTrigger, sqlite.CreateTempView,
		sqlite.DropTempIndex, sqlite.DropTempTable, sqlite.DropTempTrigger, sqlite.DropTempView:
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
