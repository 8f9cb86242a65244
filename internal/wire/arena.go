package wire

import "github.com/persqld/persqld/internal/sqlite"

const (
	maxInterned     = 256  // names kept from request to request
	maxInternedName = 64   // bytes; longer ones are made anew each time
	fewNames        = 16   // up to so many named parameters, comparing each with each is quicker than a map
	maxKeptSeen     = 1024 // a map that held more names is not kept for the next request
)

// arena is the memory that decoded statements share. What is handed out of it stays where it is until reset, also
// when the arena grows: it then goes on in a new array.
type arena struct {
	scratch []byte         // unescaped texts, decoded blobs
	params  []sqlite.Param // of all statements, one after the other

	// names holds the strings of parameter names met before, since a program uses the same few again and again.
	names map[string]string
	// seen finds a parameter's index in params by its name, in a statement with more than fewNames of them.
	seen map[string]int
}

// reset forgets the contents. The parameters are cleared, or else they would hold on to the body of the last request.
func (a *arena) reset() {
	a.scratch = a.scratch[:0]
	a.cutParams(0)
	if len(a.seen) > maxKeptSeen {
		a.seen = nil
	}
}

// cutParams drops the parameters from n on.
func (a *arena) cutParams(n int) {
	clear(a.params[n:])
	a.params = a.params[:n]
}

// footprint is the memory kept after reset, in bytes.
func (a *arena) footprint() int { return cap(a.scratch) + cap(a.params)*paramSize }

// reserve makes room for n more bytes of scratch without moving what was handed out. What it replaces stays alive
// through the slices that point into it.
func (a *arena) reserve(n int) {
	if a.scratch == nil || cap(a.scratch)-len(a.scratch) < n {
		a.scratch = make([]byte, 0, max(n, 2*cap(a.scratch), 256))
	}
}

// text is the text of a string taken by scanner.str.
func (a *arena) text(raw []byte, plain bool) []byte {
	if plain {
		return raw
	}
	a.reserve(len(raw))
	start := len(a.scratch)
	a.scratch = unquote(a.scratch, raw) // grows by itself in the rare case that U+FFFD makes the text longer than raw
	return a.scratch[start:len(a.scratch):len(a.scratch)]
}

// name is b as a string.
func (a *arena) name(b []byte) string {
	if len(b) > maxInternedName {
		return string(b)
	}
	if s, ok := a.names[string(b)]; ok {
		return s
	}
	if a.names == nil || len(a.names) >= maxInterned {
		a.names = make(map[string]string)
	}
	s := string(b)
	a.names[s] = s
	return s
}

// addNamed adds a parameter to those from index start on, or puts it in the place of the one with its name.
func (a *arena) addNamed(start int, p sqlite.Param) {
	n := len(a.params) - start
	if n < fewNames {
		for i := start; i < len(a.params); i++ {
			if a.params[i].Name == p.Name {
				a.params[i] = p
				return
			}
		}
		a.params = append(a.params, p)
		return
	}
	if n == fewNames {
		if a.seen == nil {
			a.seen = make(map[string]int)
		}
		clear(a.seen)
		for i := start; i < len(a.params); i++ {
			a.seen[a.params[i].Name] = i
		}
	}
	if i, ok := a.seen[p.Name]; ok {
		a.params[i] = p
		return
	}
	a.seen[p.Name] = len(a.params)
	a.params = append(a.params, p)
}
