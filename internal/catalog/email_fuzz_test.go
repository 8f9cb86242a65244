package catalog_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/persqld/persqld/internal/catalog"
)

// FuzzFoldEmail: what is taken for an address is one, folded for good, and can stand in a log and on a page.
func FuzzFoldEmail(f *testing.F) {
	for _, seed := range []string{"ada@example.com", " Ada@Example.COM ", `"a b"@c.d`, "a@[127.0.0.1]", "Ada <a@b.c>", "a@b,c@d", "İ@example.com", "a\x00@b.c", "=?utf-8?q?a?=@b.c", "(x)a@b.c", "a@b.c(x)", "\xff@b.c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		email, err := catalog.FoldEmail(text)
		if err != nil {
			return
		}
		again, err := catalog.FoldEmail(email)
		if err != nil || again != email {
			t.Errorf("%q is folded to %q, and that to %q, %v", text, email, again, err)
		}
		local, domain, ok := strings.Cut(email, "@")
		if !ok || local == "" || domain == "" || strings.Contains(domain, "@") || len(email) > 254 || !utf8.ValidString(email) {
			t.Errorf("%q is taken for an address", email)
		}
		for _, r := range email {
			if unicode.IsSpace(r) || !unicode.IsGraphic(r) || strings.ContainsRune(`<>",;()`, r) {
				t.Errorf("%q has %q", email, r)
			}
		}
	})
}
