package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// The issuers that are trusted from the start.
const (
	GitHub = "https://token.actions.githubusercontent.com"
	GitLab = "https://gitlab.com"
	Google = "https://accounts.google.com"
)

// Audience is what tokens must be for, where an issuer's entry says nothing else.
const Audience = "persql"

const (
	maxIssuers  = 50
	maxAllow    = 1000
	maxText     = 1 << 20 // bytes of the setting, or of its file
	maxAudience = 256
)

// Issuer is who is trusted to say whose a machine is.
type Issuer struct {
	URL      string
	Audience string
	BuiltIn  bool   // trusted from the start, and not named by the operator
	JWKSFile string // the file that has its keys; "" for discovery

	identity    template
	id, ownerID stable
	allow       []string // folded; nil for all
}

// stable is a claim that stays the same when a name goes to somebody else.
type stable struct {
	claim    string // "" for none
	required bool
}

// entry is an issuer as the operator writes it.
type entry struct {
	Issuer   string   `json:"issuer"`
	Audience string   `json:"audience"`
	Identity string   `json:"identity"`
	ID       string   `json:"id"`
	OwnerID  string   `json:"ownerId"`
	Allow    []string `json:"allow"`
	JWKSFile string   `json:"jwksFile"`
}

// builtIn are the entries of the issuers that are trusted from the start.
var builtIn = []entry{
	{Issuer: GitHub, Identity: "{repository}", ID: "{repository_id}", OwnerID: "{repository_owner_id}"},
	{Issuer: GitLab, Identity: "{project_path}", ID: "{project_id}", OwnerID: "{namespace_id}"},
	{Issuer: Google, Identity: "{email}", ID: "{sub}"},
}

// idsOf are the claims that tell apart who had a name and who has it now, by the claim that is the name. A token needs them only where the issuer has them.
var idsOf = map[string][2]string{
	"repository":   {"repository_id", "repository_owner_id"},
	"project_path": {"project_id", "namespace_id"},
	"email":        {"sub", ""},
}

// ErrIssuers is returned for trusted issuers that can't be read.
var ErrIssuers = errors.New("trusted issuers")

// ParseIssuers are the issuers of a setting: a JSON array or the path of a file with one. With builtins those that are trusted from the start are there too, unless the
// operator has an entry for one, which then counts instead. It returns ErrIssuers with a reason.
func ParseIssuers(text string, builtins bool) ([]*Issuer, error) {
	fail := func(format string, a ...any) ([]*Issuer, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrIssuers}, a...)...)
	}
	var entries []entry
	if text = strings.TrimSpace(text); text != "" {
		if text[0] != '[' {
			raw, err := readFile(text, maxText)
			if err != nil {
				return fail("%w", err)
			}
			text = string(raw)
		}
		if len(text) > maxText {
			return fail("they are longer than %d bytes", maxText)
		}
		if err := json.Unmarshal([]byte(text), &entries, json.RejectUnknownMembers(true)); err != nil {
			return fail("they must be a JSON array of objects with issuer, and as needed audience, identity, id, ownerId, allow and jwksFile: %w", err)
		}
	}
	if len(entries) > maxIssuers {
		return fail("there are more than %d", maxIssuers)
	}
	var list []*Issuer
	known := map[string]bool{}
	for i, e := range entries {
		if known[e.Issuer] {
			return fail("%s is there twice", e.Issuer)
		}
		for _, b := range builtIn { // what an entry for one of these leaves out is as it was
			if b.Issuer == e.Issuer && e.Identity == "" {
				e.Identity, e.ID, e.OwnerID = b.Identity, b.ID, b.OwnerID
			}
		}
		is, err := e.issuer()
		if err != nil {
			return fail("entry %d: %w", i+1, err)
		}
		known[e.Issuer] = true
		list = append(list, is)
	}
	for _, b := range builtIn {
		if !builtins || known[b.Issuer] {
			continue
		}
		is, err := b.issuer()
		if err != nil {
			return fail("%s: %w", b.Issuer, err)
		}
		is.BuiltIn = true
		list = append(list, is)
	}
	return list, nil
}

// issuer is what an entry says.
func (e *entry) issuer() (*Issuer, error) {
	if err := checkIssuer(e.Issuer); err != nil {
		return nil, err
	}
	is := &Issuer{URL: e.Issuer, Audience: e.Audience, JWKSFile: e.JWKSFile}
	if is.Audience == "" {
		is.Audience = Audience
	}
	if len(is.Audience) > maxAudience {
		return nil, fmt.Errorf("the audience has more than %d bytes", maxAudience)
	}
	text := e.Identity
	if text == "" {
		text = "{sub}"
	}
	var err error
	if is.identity, err = parseTemplate(text); err != nil {
		return nil, err
	}
	for _, claim := range is.identity.claims {
		if ids, ok := idsOf[claim]; ok {
			is.id.claim, is.ownerID.claim = ids[0], ids[1]
		}
	}
	for _, s := range []struct {
		text string
		to   *stable
	}{{e.ID, &is.id}, {e.OwnerID, &is.ownerID}} {
		if s.text == "" {
			continue
		}
		t, err := parseTemplate(s.text)
		if err != nil || len(t.claims) != 1 || t.literals[0] != "" || t.literals[1] != "" {
			return nil, fmt.Errorf("%q is no single claim such as {repository_id}", s.text)
		}
		*s.to = stable{t.claims[0], true}
	}
	if len(e.Allow) > maxAllow {
		return nil, fmt.Errorf("allow has more than %d patterns", maxAllow)
	}
	for _, pattern := range e.Allow {
		pattern = fold(pattern)
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return nil, fmt.Errorf("allow has %q, which is no pattern such as owner/*", pattern)
		}
		is.allow = append(is.allow, pattern)
	}
	if e.Allow != nil && len(is.allow) == 0 {
		return nil, errors.New("allow is empty, so nobody is let in; leave it out for everybody")
	}
	if is.JWKSFile != "" {
		if _, err := readKeys(is.JWKSFile); err != nil {
			return nil, fmt.Errorf("jwksFile: %w", err)
		}
	}
	return is, nil
}

// checkIssuer refuses what no issuer is called (OpenID Connect Discovery 1.0, section 3). Plain http is for this machine.
func checkIssuer(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(text, "?# \t\r\n") || len(text) > 1024 || !utf8.ValidString(text):
		return fmt.Errorf("issuer %q is no address such as https://issuer.example.com", text)
	case u.Scheme == "https", u.Scheme == "http" && thisMachine(u.Hostname()):
		return nil
	}
	return fmt.Errorf("issuer %q must begin with https://; plain http is for loopback addresses", text)
}

// thisMachine tells whether a host is a loopback address.
func thisMachine(host string) bool {
	a, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && a.Unmap().IsLoopback()
}

// allows tells whether an identity is one of those that the operator wants of this issuer. A star stands for anything but a slash, /** at the end for anything.
func (is *Issuer) allows(name string) bool {
	if is.allow == nil {
		return true
	}
	name = fold(name)
	for _, pattern := range is.allow {
		if before, deep := strings.CutSuffix(pattern, "/**"); deep {
			if parts := strings.Split(name, "/"); len(parts) > strings.Count(before, "/")+1 {
				if ok, _ := path.Match(before, strings.Join(parts[:strings.Count(before, "/")+1], "/")); ok {
					return true
				}
			}
			continue
		}
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return false
}

// fold is a name as names are compared: those of two owners never differ by the case of letters alone.
func fold(name string) string { return strings.ToLower(name) }

// template makes a name of claims: literals[0] claims[0] literals[1] …
type template struct {
	literals []string
	claims   []string
}

func parseTemplate(text string) (t template, err error) {
	bad := fmt.Errorf("identity %q is no template such as {repository}", text)
	if len(text) > 256 {
		return t, bad
	}
	for rest := text; ; {
		literal, after, more := strings.Cut(rest, "{")
		if strings.Contains(literal, "}") || !graphic(literal) || more && literal == "" && len(t.claims) > 0 {
			return t, bad
		}
		t.literals = append(t.literals, literal)
		if !more {
			break
		}
		claim, next, closed := strings.Cut(after, "}")
		if !closed || claim == "" || strings.Contains(claim, "{") {
			return t, bad
		}
		t.claims = append(t.claims, claim)
		rest = next
	}
	if len(t.claims) == 0 {
		return t, bad
	}
	return t, nil
}

// name is the name that claims make. A claim can't bring what separates it from the next: a/b and c would else be a and b/c.
func (t *template) name(claims *claims) (string, error) {
	var b strings.Builder
	for i, claim := range t.claims {
		v, err := claims.text(claim)
		if err != nil {
			return "", err
		}
		if v == "" {
			return "", fmt.Errorf("the claim %s is missing", claim)
		}
		if len(t.claims) > 1 {
			for _, literal := range t.literals {
				if strings.ContainsAny(v, literal) {
					return "", fmt.Errorf("the claim %s has a character that separates it from others", claim)
				}
			}
		}
		if claim == "email" && !claims.yes("email_verified") {
			return "", errors.New("its e-mail address is not verified")
		}
		b.WriteString(t.literals[i])
		b.WriteString(v)
	}
	b.WriteString(t.literals[len(t.claims)])
	name := b.String()
	if len(name) > MaxName || !graphic(name) {
		return "", fmt.Errorf("the identity must have 1 to %d characters of ASCII without white space", MaxName)
	}
	return name, nil
}

// MaxName is the longest identity, in bytes.
const MaxName = 256

// ValidName tells whether a text can be an identity.
func ValidName(name string) bool { return name != "" && len(name) <= MaxName && graphic(name) }

func graphic(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func readFile(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", name, limit)
	}
	return os.ReadFile(name)
}
