package redirect

import (
	"unicode"
	"unicode/utf8"
)

// MaxName is how many characters a client's name may have.
const MaxName = 200

// ShownName tells whether people may be shown a name before they let a client in: it has something to see, no control characters, and none that turn the direction of what follows
// or can't be seen (Unicode, categories Cc, Cf, Zl, Zp).
func ShownName(name string) bool {
	if !utf8.ValidString(name) || utf8.RuneCountInString(name) > MaxName {
		return false
	}
	seen := false
	for _, r := range name {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return false
		}
		seen = seen || !unicode.IsSpace(r)
	}
	return seen
}
