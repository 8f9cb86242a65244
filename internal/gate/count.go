package gate

import (
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// CountOf is a SELECT that counts the rows which a judged DELETE or UPDATE is about, with the same parameters, for an estimate where running it takes too long; "" for any
// other statement. It decides nothing: the SELECT is judged like a client's.
func CountOf(s *sqlite.Stmt) string {
	st, ok := lexStatement(s.SQL())
	if !ok || len(st.tokens) < 3 {
		return ""
	}
	from, end := 0, len(st.tokens)
	if at := st.find(0, "RETURNING"); at > 0 {
		end = at
	}
	where := st.find(0, "WHERE")
	if where < 0 || where > end {
		where = end
	}
	var variables []string
	table := where
	switch {
	case st.is(0, "DELETE") && st.is(1, "FROM"):
		from = 2
	case st.is(0, "UPDATE"):
		if from = 1; st.is(1, "OR") {
			from = 3
		}
		set := st.find(from, "SET")
		if set < 0 || set > where || st.find(set, "FROM") > 0 {
			return ""
		}
		// Its parameters must have the numbers that they have in the statement.
		for i := set; i < where; i++ {
			if st.tokens[i].kind == variable {
				variables = append(variables, st.raw(i))
			}
		}
		table = set
	default:
		return ""
	}
	if from >= table || st.find(where, "ORDER", "LIMIT") > 0 {
		return ""
	}
	span := func(a, b int) string {
		if a >= b {
			return ""
		}
		return st.sql[st.tokens[a].start:st.tokens[b-1].end]
	}
	with := ""
	if len(variables) > 0 {
		with = "WITH _set AS (SELECT " + strings.Join(variables, ",") + ") "
	}
	return with + "SELECT count(*) FROM " + span(from, table) + " " + span(where, end)
}

// DefinesSchema tells whether a judged statement makes, alters or drops something.
func DefinesSchema(s *sqlite.Stmt) bool {
	v, ok := s.Memo.(*verdict)
	return ok && v.schema
}
