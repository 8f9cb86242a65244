package approval

import "strings"

// Glob is a compiled pattern of table names: * is any text, ? is one character, and anything else itself, in either case. The
// zero Glob matches the empty name alone.
type Glob struct {
	parts []string // between the stars, folded
	exact bool     // there is no star and no question mark
}

// MaxGlob is the longest pattern, in bytes.
const MaxGlob = 255

// NewGlob compiles a pattern.
func NewGlob(pattern string) Glob {
	folded := strings.ToLower(pattern)
	return Glob{parts: strings.Split(folded, "*"), exact: !strings.ContainsAny(folded, "*?")}
}

// Match tells whether a name fits. It takes time in proportion to the name's length times the pattern's, at the most.
func (g Glob) Match(name string) bool { return g.match(strings.ToLower(name)) }

// match is Match for a name that is folded.
func (g Glob) match(name string) bool {
	if len(g.parts) == 0 {
		return name == ""
	}
	if g.exact {
		return name == g.parts[0]
	}
	first, last := g.parts[0], g.parts[len(g.parts)-1]
	n, ok := prefix(name, first)
	if !ok {
		return false
	}
	if len(g.parts) == 1 {
		return n == len(name)
	}
	name = name[n:]
	for _, part := range g.parts[1 : len(g.parts)-1] {
		// The first place is the best one: what is left for the others is longest then.
		if name, ok = after(name, part); !ok {
			return false
		}
	}
	return suffix(name, last)
}

// prefix tells whether a name begins with a part, and how many bytes that takes.
func prefix(name, part string) (n int, ok bool) {
	for _, want := range part {
		if n == len(name) {
			return 0, false
		}
		size := runeLen(name[n:])
		if want != '?' && name[n:n+size] != string(want) {
			return 0, false
		}
		n += size
	}
	return n, true
}

// after is what is left of a name behind the first place where a part fits.
func after(name, part string) (rest string, ok bool) {
	for {
		if n, ok := prefix(name, part); ok {
			return name[n:], true
		}
		if name == "" {
			return "", false
		}
		name = name[runeLen(name):]
	}
}

func suffix(name, part string) bool {
	for {
		if n, ok := prefix(name, part); ok && n == len(name) {
			return true
		}
		if name == "" {
			return false
		}
		name = name[runeLen(name):]
	}
}

// runeLen is the length of the first character, in bytes; a byte that is none counts as one.
func runeLen(s string) int {
	for i := range s {
		if i > 0 {
			return i
		}
	}
	return len(s)
}
