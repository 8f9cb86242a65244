package schema

// Same is how definitions are compared.
func Same(a, b *Object) bool { return same(a, b) }

// Canon is the form in which they are.
func Canon(o *Object) string { return canon(o) }

// IsKeyword looks into the list of keywords.
func IsKeyword(s string) bool { return keywords[s] }

// Plain tells of a name that it needs no quotes.
func Plain(s string) bool { return plain(s) }

// MaxObjects is the greatest number of objects.
const MaxObjects = maxObjects

// Piece is a token: where it is, and whether it is a word.
type Piece struct {
	Start, End int
	Word       bool
}

// Lex splits SQL.
func Lex(sql string) (all []Piece, ok bool) {
	s, ok := lex(sql)
	for _, t := range s.tokens {
		all = append(all, Piece{t.start, t.end, t.kind == word})
	}
	return all, ok
}
