package catalog

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// seal encrypts what must be recovered, such as tokens of pending approvals, with a key that is in no database: who has the catalog
// alone, as of a backup, has none of it.
type seal struct {
	path string

	mu   sync.Mutex
	aead cipher.AEAD
}

const sealKeySize = 32 // AES-256

var errSealKey = errors.New("the key file does not have 32 bytes")

// open reads the key, or makes it.
func (s *seal) open() (cipher.AEAD, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aead != nil {
		return s.aead, nil
	}
	key, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(s.path)
	}
	if err != nil {
		return nil, fmt.Errorf("read seal key: %w", err)
	}
	if len(key) != sealKeySize {
		return nil, fmt.Errorf("read seal key %s: %w", s.path, errSealKey)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	s.aead, err = cipher.NewGCM(block)
	return s.aead, err
}

// makeKey makes a key's file, durably and whole: what was sealed with a key that is lost can't be had again.
func makeKey(path string) (key []byte, err error) {
	key = make([]byte, sealKeySize)
	rand.Read(key)                                         // never fails
	f, err := os.CreateTemp(filepath.Dir(path), ".seal-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(key); err != nil {
		return nil, err
	}
	if err = f.Sync(); err != nil {
		return nil, err
	}
	if err = f.Close(); err != nil {
		return nil, err
	}
	return key, os.Rename(f.Name(), path)
}

// close seals a text for the record of an id: it opens for no other.
func (s *seal) close(text, id string) ([]byte, error) {
	aead, err := s.open()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(text)+aead.Overhead())
	rand.Read(nonce)
	return aead.Seal(nonce, nonce, []byte(text), []byte(id)), nil
}

// reveal is the text that was sealed for an id.
func (s *seal) reveal(sealed []byte, id string) (string, error) {
	aead, err := s.open()
	if err != nil {
		return "", err
	}
	if len(sealed) < aead.NonceSize() {
		return "", errSealKey
	}
	text, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], []byte(id))
	return string(text), err
}
