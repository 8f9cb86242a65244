package catalog

import (
	"unicode"
	"unicode/utf8"
)

// maxSlug is a slug's greatest length in bytes.
const maxSlug = 63

// maxName is the greatest length, in characters, of the name of a token or a database.
const maxName = 200

// ValidSlug reports whether s can be the slug of a namespace or a database: ^[a-z0-9][a-z0-9-]{0,62}$.
func ValidSlug(s string) bool {
	if s == "" || len(s) > maxSlug || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func validName(s string) bool {
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > maxName {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}
