package gate

import "strings"

// Split splits SQL into its statements, as sqlite3_complete does: a trigger's body ends with END before a semicolon. What has no statement, but comments and semicolons, is left out. ok is
// false where a quote or parenthesis isn't closed, or a trigger. params tells whether there is a parameter, such as ? or :a. Whether each piece is one statement SQLite says, when it compiles it.
func Split(sql string) (statements []string, params, ok bool) {
	s, ok := lexAll(sql)
	if !ok {
		return nil, false, false
	}
	begin := -1
	for i, t := range s.tokens {
		if t.kind == variable {
			params = true
		}
		if s.raw(i) != ";" {
			if begin < 0 {
				begin = i
			}
			continue
		}
		if begin < 0 || s.definesTrigger(begin) && !(s.is(i-1, "end") && s.raw(i-2) == ";") {
			continue
		}
		statements = append(statements, strings.TrimSpace(sql[s.tokens[begin].start:t.start]))
		begin = -1
	}
	if begin < 0 {
		return statements, params, true
	}
	last := len(s.tokens) - 1
	if s.definesTrigger(begin) && !(s.is(last, "end") && s.raw(last-1) == ";") {
		return nil, params, false
	}
	return append(statements, strings.TrimSpace(sql[s.tokens[begin].start:s.end()])), params, true
}

// definesTrigger tells whether the statement that begins with token i is CREATE TRIGGER.
func (s *statement) definesTrigger(i int) bool {
	if s.is(i, "explain") {
		if i++; s.is(i, "query") && s.is(i+1, "plan") {
			i += 2
		}
	}
	if !s.is(i, "create") {
		return false
	}
	if i++; s.is(i, "temp", "temporary") {
		i++
	}
	return s.is(i, "trigger")
}
