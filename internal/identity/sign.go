package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// signingBits is the size of our keys: RS256 is what every relying party knows.
const signingBits = 2048

// assertionType says in a token's header that it is an assertion of ours, which no token for another purpose says (RFC 8725, section 3.11).
const assertionType = "oauth-id-jag+jwt"

// SigningKey is a key of ours.
type SigningKey struct {
	ID      string // its thumbprint (RFC 7638)
	Public  string // as a JWK
	Private string // PKCS #8 in base64; "" where it isn't needed or can't be had
}

// NewSigningKey makes a key.
func NewSigningKey() (SigningKey, error) {
	k, err := rsa.GenerateKey(rand.Reader, signingBits)
	if err != nil {
		return SigningKey{}, fmt.Errorf("make signing key: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return SigningKey{}, fmt.Errorf("make signing key: %w", err)
	}
	public := jose.JSONWebKey{Key: &k.PublicKey, Use: "sig", Algorithm: string(jose.RS256)}
	print, err := public.Thumbprint(crypto.SHA256)
	if err != nil {
		return SigningKey{}, fmt.Errorf("make signing key: %w", err)
	}
	public.KeyID = base64.RawURLEncoding.EncodeToString(print)
	text, err := public.MarshalJSON()
	if err != nil {
		return SigningKey{}, fmt.Errorf("make signing key: %w", err)
	}
	return SigningKey{ID: public.KeyID, Public: string(text), Private: base64.StdEncoding.EncodeToString(private)}, nil
}

// JWKS is the JWK Set of keys, their public halves alone.
func JWKS(keys []SigningKey) ([]byte, error) {
	set := struct {
		Keys []jsontext.Value `json:"keys"`
	}{Keys: []jsontext.Value{}}
	for _, k := range keys {
		set.Keys = append(set.Keys, jsontext.Value(k.Public))
	}
	return json.Marshal(set)
}

// assertion are the claims of an assertion of ours: RFC 7523's, and whose machine it is.
type assertion struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	ID       string `json:"jti"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`

	IdentityIssuer  string `json:"identity_issuer"`
	IdentityID      string `json:"identity_id,omitempty"`
	IdentityOwnerID string `json:"identity_owner_id,omitempty"`
}

// Signer signs with the key, RS256, what says in its header that it is of that type. It may be used by many at the same time.
func (k SigningKey) Signer(kind string) (jose.Signer, error) {
	der, err := base64.StdEncoding.DecodeString(k.Private)
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	return jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: private, KeyID: k.ID}}, (&jose.SignerOptions{}).WithType(jose.ContentType(kind)))
}

// Sign makes an assertion of ours about an identity, for the token endpoint at audience.
func Sign(k SigningKey, issuer, audience string, id *Identity, now time.Time, ttl time.Duration) (token string, expires time.Time, err error) {
	signer, err := k.Signer(assertionType)
	if err != nil {
		return "", expires, fmt.Errorf("sign assertion: %w", err)
	}
	expires = now.Add(ttl).UTC().Truncate(time.Second)
	raw, err := json.Marshal(assertion{Issuer: issuer, Subject: id.Name, Audience: audience, ID: rand.Text(), IssuedAt: now.Unix(), Expires: expires.Unix(),
		IdentityIssuer: id.Issuer, IdentityID: id.ID, IdentityOwnerID: id.OwnerID})
	if err != nil {
		return "", expires, fmt.Errorf("sign assertion: %w", err)
	}
	object, err := signer.Sign(raw)
	if err != nil {
		return "", expires, fmt.Errorf("sign assertion: %w", err)
	}
	token, err = object.CompactSerialize()
	return token, expires, err
}

// ErrAssertion is returned for what is no assertion of ours, or no longer.
var ErrAssertion = errors.New("the assertion can't be verified")

// VerifyAssertion is the identity that an assertion of ours names.
func VerifyAssertion(token string, keys []SigningKey, issuer, audience string, now time.Time) (*Identity, error) {
	bad := func(why string) (*Identity, error) { return nil, fmt.Errorf("%w: %s", ErrAssertion, why) }
	if len(token) > MaxToken {
		return bad(fmt.Sprintf("it is longer than %d bytes", MaxToken))
	}
	signed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || len(signed.Headers) != 1 {
		return bad("it is no JWT that is signed with RS256")
	}
	header := signed.Headers[0]
	var raw jsontext.Value
	for _, k := range keys {
		var public jose.JSONWebKey
		if k.ID == header.KeyID && public.UnmarshalJSON([]byte(k.Public)) == nil && signed.Claims(public.Key, &raw) == nil {
			break
		}
		raw = nil
	}
	if raw == nil {
		return bad("it is not signed by this server, or with a key that was replaced; POST /agent/identity makes one")
	}
	if header.ExtraHeaders[jose.HeaderType] != assertionType {
		return bad("it is a token for another purpose")
	}
	var a assertion
	if err := json.Unmarshal(raw, &a); err != nil {
		return bad("its claims can't be read")
	}
	c, err := parseClaims(raw)
	if err != nil {
		return bad("its claims can't be read")
	}
	if a.Issuer != issuer || a.Audience != audience {
		return bad("it is for another server")
	}
	expires := time.Unix(a.Expires, 0)
	if !now.Before(expires) {
		return bad("it is expired")
	}
	return &Identity{Issuer: a.IdentityIssuer, Name: a.Subject, ID: a.IdentityID, OwnerID: a.IdentityOwnerID, Once: c.once(issuer, token),
		IssuedAt: time.Unix(a.IssuedAt, 0), Expires: expires}, nil
}
