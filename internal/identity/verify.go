package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxToken is the longest token that is looked at, in bytes.
const MaxToken = 16 << 10

// Leeway is how much clocks may differ.
const Leeway = 30 * time.Second

// algorithms are all that signatures may be made with. What a token says of itself chooses among them and no further.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256}

// Hash names a token among those that were used.
type Hash = [sha256.Size]byte

// Identity is whose machine a token names.
type Identity struct {
	Issuer   string
	Name     string // owner/repo, or what else the issuer's template makes
	ID       string // stays the same when the name goes to somebody else; "" where the issuer has none
	OwnerID  string // likewise of the owner
	BuiltIn  bool   // by an issuer that the operator hasn't named
	Once     Hash   // of the token
	IssuedAt time.Time
	Expires  time.Time // of the token
}

// Folded is the name as names are compared.
func (id *Identity) Folded() string { return fold(id.Name) }

// Fold is a name as names are compared.
func Fold(name string) string { return fold(name) }

// OwnerOf is the owner in a folded name, what comes before its last slash; "" where there is none.
func OwnerOf(folded string) string {
	if i := strings.LastIndexByte(folded, '/'); i > 0 {
		return folded[:i]
	}
	return ""
}

// ErrToken is returned for a token that nobody is let in by. The reason says nothing but what is in the token.
var ErrToken = errors.New("the OIDC token can't be verified")

// ErrNotAllowed is returned for an identity that the operator's entry for its issuer doesn't allow.
var ErrNotAllowed = errors.New("the identity is not one of those that the operator allows of its issuer")

// Options are what a Verifier needs.
type Options struct {
	Issuers []*Issuer
	Get     Getter
	Now     func() time.Time
	Logger  *slog.Logger
}

// Verifier verifies tokens of trusted issuers.
type Verifier struct {
	issuers map[string]*keySet
	now     func() time.Time
}

// NewVerifier trusts these issuers and nobody else.
func NewVerifier(o Options) *Verifier {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	v := &Verifier{issuers: map[string]*keySet{}, now: o.Now}
	for _, is := range o.Issuers {
		v.issuers[is.URL] = &keySet{issuer: is, get: o.Get, now: o.Now, log: o.Logger}
	}
	return v
}

func refuse(why string) error { return fmt.Errorf("%w: %s", ErrToken, why) }

// Verify is the identity that a token names. It returns ErrToken, or ErrNotAllowed.
func (v *Verifier) Verify(ctx context.Context, token string) (*Identity, error) {
	if token == "" {
		return nil, refuse("there is none; send it as the bearer")
	}
	if len(token) > MaxToken {
		return nil, refuse(fmt.Sprintf("it is longer than %d bytes", MaxToken))
	}
	signed, err := jwt.ParseSigned(token, algorithms)
	if err != nil || len(signed.Headers) != 1 {
		return nil, refuse("it is no JWT that is signed with RS256 or ES256")
	}
	var unverified jsontext.Value
	if err := signed.UnsafeClaimsWithoutVerification(&unverified); err != nil {
		return nil, refuse("its claims can't be read")
	}
	c, err := parseClaims(unverified)
	if err != nil {
		return nil, err
	}
	iss, err := c.text("iss")
	set := v.issuers[iss]
	if err != nil || set == nil {
		return nil, refuse("its issuer is not trusted here")
	}
	header := signed.Headers[0]
	keys, err := set.find(ctx, header.KeyID, jose.SignatureAlgorithm(header.Algorithm))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, refuse(err.Error())
	}
	if !verified(signed, keys) {
		return nil, refuse("its signature is wrong")
	}
	// From here on the issuer has said so.
	expires, issued, err := c.times(v.now())
	if err != nil {
		return nil, err
	}
	if !c.isFor(set.issuer.Audience) {
		return nil, refuse("it is for another audience than " + strconv.Quote(set.issuer.Audience))
	}
	if sub, err := c.text("sub"); err != nil || sub == "" {
		return nil, refuse("it has no subject")
	}
	id := &Identity{Issuer: iss, BuiltIn: set.issuer.BuiltIn, Expires: expires, IssuedAt: issued, Once: c.once(iss, token)}
	if id.Name, err = set.issuer.identity.name(c); err != nil {
		return nil, refuse(err.Error())
	}
	if id.ID, err = c.stable(set.issuer.id); err != nil {
		return nil, err
	}
	if id.OwnerID, err = c.stable(set.issuer.ownerID); err != nil {
		return nil, err
	}
	return id, v.Admit(id)
}

// Trusts tells whether an issuer is trusted.
func (v *Verifier) Trusts(issuer string) bool { return v.issuers[issuer] != nil }

// Admit tells whether an identity is still let in: its issuer is trusted, and allows it. It returns ErrToken or ErrNotAllowed.
func (v *Verifier) Admit(id *Identity) error {
	set := v.issuers[id.Issuer]
	if set == nil {
		return refuse("its issuer is not trusted here")
	}
	id.BuiltIn = set.issuer.BuiltIn
	if !set.issuer.allows(id.Name) {
		return ErrNotAllowed
	}
	return nil
}

func verified(signed *jwt.JSONWebToken, keys []key) bool {
	for _, k := range keys {
		var payload jsontext.Value
		if signed.Claims(k.public, &payload) == nil {
			return true
		}
	}
	return false
}

// claims are those of a token. A name that is there twice, which two readers could take differently, is no claim set.
type claims struct{ all map[string]jsontext.Value }

func parseClaims(raw []byte) (*claims, error) {
	c := &claims{}
	if err := json.Unmarshal(raw, &c.all); err != nil {
		return nil, refuse("its claims can't be read")
	}
	return c, nil
}

// text is a claim that is a string or a whole number; "" where it isn't there.
func (c *claims) text(name string) (string, error) {
	v := c.all[name]
	switch v.Kind() {
	case 'n', jsontext.KindInvalid:
		return "", nil
	case '"':
		var s string
		err := json.Unmarshal(v, &s)
		return s, err
	case '0':
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return strconv.FormatInt(n, 10), nil
		}
	}
	return "", fmt.Errorf("the claim %s is no text", name)
}

func (c *claims) stable(s stable) (string, error) {
	if s.claim == "" {
		return "", nil
	}
	v, err := c.text(s.claim)
	if err != nil {
		return "", refuse(err.Error())
	}
	if v == "" && s.required {
		return "", refuse("the claim " + s.claim + " is missing")
	}
	if len(v) > MaxName || !graphic(v) {
		return "", refuse("the claim " + s.claim + " is no id")
	}
	return v, nil
}

// yes tells whether a claim is true. Some issuers write that as a string.
func (c *claims) yes(name string) bool {
	v := string(c.all[name])
	return v == "true" || v == `"true"`
}

// isFor tells whether an audience is among those of the token.
func (c *claims) isFor(audience string) bool {
	v := c.all["aud"]
	var one string
	if v.Kind() == '"' && json.Unmarshal(v, &one) == nil {
		return one == audience
	}
	var list []string
	if v.Kind() != '[' || json.Unmarshal(v, &list) != nil {
		return false
	}
	for _, a := range list {
		if a == audience {
			return true
		}
	}
	return false
}

// moment is a claim that is a NumericDate (RFC 7519, section 2); ok is false where it isn't there.
func (c *claims) moment(name string) (at time.Time, ok bool, err error) {
	v := c.all[name]
	if v.Kind() == jsontext.KindInvalid {
		return at, false, nil
	}
	var seconds float64
	if v.Kind() != '0' || json.Unmarshal(v, &seconds) != nil || math.Abs(seconds) > 1e11 {
		return at, false, refuse("the claim " + name + " is no time")
	}
	return time.UnixMilli(int64(seconds * 1000)), true, nil
}

// times looks at when the token is valid, and returns when it ends and when it was made.
func (c *claims) times(now time.Time) (expires, issued time.Time, err error) {
	expires, ok, err := c.moment("exp")
	if err != nil {
		return expires, issued, err
	}
	if !ok {
		return expires, issued, refuse("it never expires")
	}
	if !now.Add(-Leeway).Before(expires) {
		return expires, issued, refuse("it is expired")
	}
	for _, name := range []string{"nbf", "iat"} {
		at, ok, err := c.moment(name)
		if err != nil {
			return expires, issued, err
		}
		if ok && at.After(now.Add(Leeway)) {
			return expires, issued, refuse("it is not valid yet")
		}
		if name == "iat" && ok {
			issued = at
		}
	}
	return expires, issued, nil
}

// once names the token among those that were used: by its id, else by all that is signed of it. Not by the signature, of which ECDSA has two for the same token.
func (c *claims) once(iss, token string) Hash {
	if jti, err := c.text("jti"); err == nil && jti != "" {
		return sha256.Sum256([]byte("jti\x00" + iss + "\x00" + jti))
	}
	return sha256.Sum256([]byte("signed\x00" + token[:strings.LastIndexByte(token, '.')]))
}
