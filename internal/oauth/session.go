package oauth

import (
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/token/jwt"

	"github.com/persqld/persqld/internal/catalog"
)

// session is what fosite carries along with a request: whose it is. When tokens end is the catalog's to say, by its own clock.
type session struct {
	user   string
	nonce  string
	authAt time.Time
	token  *catalog.OAuthToken // that is introspected
	claims jwt.IDTokenClaims   // of which fosite fills in at_hash alone
	header jwt.Headers
}

func newSession(user, nonce string, authAt time.Time) *session {
	s := &session{user: user, nonce: nonce, authAt: authAt}
	s.claims.Subject = user // fosite looks whether there is one
	return s
}

func (s *session) SetExpiresAt(fosite.TokenType, time.Time) {}
func (s *session) GetExpiresAt(fosite.TokenType) time.Time  { return time.Time{} }
func (s *session) GetUsername() string                      { return "" }
func (s *session) GetSubject() string                       { return s.user }
func (s *session) IDTokenClaims() *jwt.IDTokenClaims        { return &s.claims }
func (s *session) IDTokenHeaders() *jwt.Headers             { return &s.header }
func (s *session) Clone() fosite.Session {
	if s == nil {
		return nil
	}
	c := *s
	return &c
}
