package gate

import (
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// Destructive is what a statement does that takes much away at once, for people: "DROP TABLE orders", "DELETE FROM orders without WHERE"; "" for any other.
// It is no decision on who may run it: a snapshot is taken before, so the text may be looked at.
func Destructive(s *sqlite.Stmt) string {
	if !s.Writes || s.Explain {
		return ""
	}
	v, judged := s.Memo.(*verdict)
	if !judged {
		return destructive(s)
	}
	if !v.looked {
		v.looked, v.destroys = true, destructive(s)
	}
	return v.destroys
}

func destructive(s *sqlite.Stmt) string {
	for i := range s.Accesses {
		a := &s.Accesses[i]
		if kinds[a.Action] == "" && a.Action != sqlite.AlterTable && IsSystem(a.Name) {
			continue // what SQLite does for the others
		}
		switch a.Action {
		case sqlite.DropTable, sqlite.DropVTable, sqlite.DropView, sqlite.DropIndex, sqlite.DropTrigger:
			if a.By == "" {
				return "DROP " + strings.ToUpper(kinds[a.Action]) + " " + a.Name
			}
		case sqlite.AlterTable:
			if st, ok := lexStatement(s.SQL()); ok && st.find(0, "DROP") > 0 {
				return "ALTER TABLE " + a.Detail + " DROP"
			}
			return ""
		case sqlite.Delete, sqlite.Update:
			if a.By == "" && unfiltered(s) {
				return verbs[a.Action] + " of all of " + a.Name
			}
			return ""
		case sqlite.Insert, sqlite.CreateTable, sqlite.CreateIndex, sqlite.CreateVTable, sqlite.CreateView, sqlite.CreateTrigger:
			return ""
		}
	}
	return ""
}

var kinds = map[sqlite.Action]string{sqlite.DropTable: "table", sqlite.DropVTable: "table", sqlite.DropView: "view", sqlite.DropIndex: "index", sqlite.DropTrigger: "trigger"}

// unfiltered tells whether an UPDATE or DELETE has no WHERE.
func unfiltered(s *sqlite.Stmt) bool {
	st, ok := lexStatement(s.SQL())
	if !ok {
		return true
	}
	at := st.find(0, "UPDATE", "DELETE")
	return at >= 0 && st.find(at, "WHERE") < 0
}
