package identity_test

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/go-jose/go-jose/v4"
)

// staticKeys verifies for go-oidc with a JWK Set as it was published.
type staticKeys struct{ raw []byte }

// VerifySignature looks for the key by its id, as a relying party does.
func (s *staticKeys) VerifySignature(_ context.Context, token string) ([]byte, error) {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(s.raw, &set); err != nil {
		return nil, err
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, err
	}
	for _, k := range set.Key(signed.Signatures[0].Header.KeyID) {
		return signed.Verify(k.Key)
	}
	return nil, errors.New("no key")
}
