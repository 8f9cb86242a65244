package api

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/identity"
)

// KeyOverlap is how long a signing key is still good to verify with after it was replaced, unless the operator says otherwise.
const KeyOverlap = 24 * time.Hour

// signer has the key that signs, opened.
type signer struct {
	mu  sync.Mutex
	key identity.SigningKey
}

// publishedKeys are the keys that our signatures are verified with, without their private halves.
func (s *Server) publishedKeys() (keys []identity.SigningKey) {
	for _, k := range s.opt.Catalog.SigningKeys() {
		keys = append(keys, identity.SigningKey{ID: k.ID, Public: k.Public})
	}
	return keys
}

// signingKey is the key that signs now. It is made where there is none yet, or where the one that there is can't be opened on this machine.
func (s *Server) signingKey(ctx context.Context) (identity.SigningKey, error) {
	s.signer.mu.Lock()
	defer s.signer.mu.Unlock()
	var current *catalog.SigningKey
	if keys := s.opt.Catalog.SigningKeys(); len(keys) > 0 && keys[0].EndsAt.IsZero() {
		current = keys[0]
		if current.ID == s.signer.key.ID {
			return s.signer.key, nil
		}
		secret, err := s.opt.Catalog.SigningSecret(current)
		if err == nil {
			s.signer.key = identity.SigningKey{ID: current.ID, Public: current.Public, Private: secret}
			return s.signer.key, nil
		}
		if !errors.Is(err, catalog.ErrSealed) {
			return identity.SigningKey{}, err
		}
		s.log.Warn("the signing key can't be opened on this machine; another one is made", "key", current.ID)
	}
	k, err := identity.NewSigningKey()
	if err != nil {
		return k, err
	}
	made, err := s.opt.Catalog.AddSigningKey(context.WithoutCancel(ctx), catalog.NewSigningKey{ID: k.ID, Public: k.Public, Private: k.Private, Overlap: KeyOverlap, Instead: current})
	if err != nil {
		return k, err
	}
	if made.ID != k.ID { // the operator rotated meanwhile
		if k.Private, err = s.opt.Catalog.SigningSecret(made); err != nil {
			return k, err
		}
		k.ID, k.Public = made.ID, made.Public
	}
	s.signer.key = k
	return k, nil
}
