package upstream_test

import (
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/upstream"
	"github.com/persqld/persqld/internal/upstream/upstreamtest"
)

// A picture is the address of one, or none: whatever is told, of whatever type, nobody's sign-in fails for it.
func TestPictures(t *testing.T) {
	is, hub := upstreamtest.NewOIDC(t), upstreamtest.NewGitHub(t)
	openID, gitHub := upstream.NewOIDC(is.URL, "", options(nil)), upstream.NewGitHub(hub.URL, "", options(nil))
	const good = "https://pictures.example/"
	for name, c := range map[string]struct {
		told  any
		taken bool
	}{
		"fine":                   {good + "u/7?v=4&s=200", true},
		"with a port":            {"https://pictures.example:8443/7.png#x", true},
		"an address of IPv6":     {"https://[2001:db8::1]/7.png", true},
		"letters of others":      {good + "й/é.png", true},
		"500 bytes":              {good + strings.Repeat("p", 500-len(good)), true},
		"501 bytes":              {good + strings.Repeat("p", 501-len(good)), false},
		"501 bytes, 500 letters": {good + "é" + strings.Repeat("p", 499-len(good)), false},
		"nothing":                {nil, false},
		"empty":                  {"", false},
		"http":                   {"http://pictures.example/7.png", false},
		"data":                   {"data:image/png;base64,AAAA", false},
		"javascript":             {"javascript:alert(1)", false},
		"javascript with a host": {"javascript://pictures.example/%0aalert(1)", false},
		"a file":                 {"file:///etc/passwd", false},
		"relative":               {"/7.png", false},
		"of the page's scheme":   {"//pictures.example/7.png", false},
		"opaque":                 {"https:pictures.example/7.png", false},
		"no host":                {"https:///7.png", false},
		"a port alone":           {"https://:443/7.png", false},
		"a user":                 {"https://ada@pictures.example/7.png", false},
		"a user and a password":  {"https://ada:secret@pictures.example/7.png", false},
		"an empty user":          {"https://@pictures.example/7.png", false},
		"a line's end":           {good + "7.png\r\nX-Header: 1", false},
		"a line's end first":     {"\n" + good + "7.png", false},
		"a zero byte":            {good + "\x00", false},
		"DEL":                    {good + "\x7f", false},
		"a control of Latin 1":   {good + "\u0085", false},
		"turned around":          {good + "\u202egnp.7", false},
		"unseen":                 {good + "\u200b7.png", false},
		"a space":                {good + "7 8.png", false},
		"a quote":                {good + `7.png" onerror="alert(1)`, false},
		"an end of a tag":        {good + "7.png><script>", false},
		"a backslash":            {`https:\\pictures.example\7.png`, false},
		"not UTF-8":              {good + "\xff", false},
		"a replaced letter":      {good + "\ufffd", false},
		"a broken escape":        {"https://pictures.example%zz/7.png", false},
		"a number":               {7, false},
		"true":                   {true, false},
		"a list":                 {[]string{good + "7.png"}, false},
		"an object":              {map[string]any{"data": map[string]any{"url": good + "7.png"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			want := ""
			if c.taken {
				want = c.told.(string)
			}
			is.Person(ada(map[string]any{"picture": c.told}))
			hub.Person(7, "ada", "Ada")
			hub.Picture(c.told)
			for _, p := range []upstream.Provider{openID, gitHub} {
				if who, err := signIn(t, p); err != nil || who.Picture != want || who.Name != "Ada" {
					t.Errorf("%s: got %+v, %v", p.Name(), who, err)
				}
			}
			is.Person(ada(map[string]any{"name": nil, "email": nil}))
			is.UserInfo(map[string]any{"sub": "ada-1", "name": "Ada", "email": "ada@example.com", "picture": c.told})
			defer is.UserInfo(nil)
			if who, err := signIn(t, openID); err != nil || who.Picture != want || who.Name != "Ada" || who.Email != "ada@example.com" {
				t.Errorf("userinfo: got %+v, %v", who, err)
			}
		})
	}
	// As with the name, what the id_token says comes before what userinfo does.
	is.Person(ada(map[string]any{"email": nil, "picture": good + "token.png"}))
	is.UserInfo(map[string]any{"sub": "ada-1", "picture": good + "userinfo.png"})
	if who, err := signIn(t, openID); err != nil || who.Picture != good+"token.png" {
		t.Errorf("got %+v, %v", who, err)
	}
	is.Person(ada(map[string]any{"email": nil}))
	is.UserInfo(map[string]any{"sub": "bob-1", "picture": good + "bob.png"})
	if who, err := signIn(t, openID); err != nil || who.Picture != "" {
		t.Errorf("of somebody else: %+v, %v", who, err)
	}
}
