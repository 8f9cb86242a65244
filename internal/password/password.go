// Package password hashes passwords with argon2id (RFC 9106) and checks them. A hash is a PHC string, which carries its
// parameters, so that they can change while old hashes still work.
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// The least and the greatest length of a password, in bytes. Eight is what NIST SP 800-63B asks for; the greatest bounds
// what an unknown sender can have hashed.
const (
	MinLength = 8
	MaxLength = 1024
)

var (
	// ErrLength is returned for a password that is too short or too long.
	ErrLength = fmt.Errorf("a password has %d to %d bytes", MinLength, MaxLength)
	// ErrText is returned for a password that is no valid UTF-8 or has control characters, which forms and terminals change.
	ErrText = errors.New("a password is text without control characters")
	// ErrBusy is returned where as many hashings are under way as may be.
	ErrBusy = errors.New("too many passwords are being checked")

	errHash = errors.New("malformed password hash")
)

// Check returns ErrLength or ErrText for what can't be a password.
func Check(password string) error {
	if len(password) < MinLength || len(password) > MaxLength {
		return ErrLength
	}
	if !utf8.ValidString(password) {
		return ErrText
	}
	for _, r := range password {
		if r < ' ' || r == 0x7f {
			return ErrText
		}
	}
	return nil
}

// Options are a Hasher's. A zero value is its default, which is OWASP's.
type Options struct {
	Memory int           // bytes; 19 MiB
	Passes int           // over the memory; 2
	AtOnce int           // hashings at the same time; 2
	Wait   time.Duration // longest that one waits for its turn before ErrBusy; 1 s
}

const (
	saltBytes = 16
	keyBytes  = 32
	lanes     = 1 // more would be threads, which AtOnce is to bound

	// maxMemory and maxPasses bound what a stored hash may ask for: KiB, and passes.
	maxMemory = 4 << 20
	maxPasses = 1000
)

// Hasher hashes and verifies. Its methods may be called at the same time.
type Hasher struct {
	memory, passes uint32 // KiB; passes
	wait           time.Duration
	turns          chan struct{}
	dummy          string // the hash of no password
}

// New returns a Hasher.
func New(o Options) *Hasher {
	if o.Memory <= 0 {
		o.Memory = 19 << 20
	}
	if o.Passes <= 0 {
		o.Passes = 2
	}
	if o.AtOnce <= 0 {
		o.AtOnce = 2
	}
	if o.Wait <= 0 {
		o.Wait = time.Second
	}
	h := &Hasher{memory: uint32(o.Memory >> 10), passes: uint32(o.Passes), wait: o.Wait, turns: make(chan struct{}, o.AtOnce)}
	// Random salt and key: that any password fits is as likely as that one breaks the hash.
	salt, key := make([]byte, saltBytes), make([]byte, keyBytes)
	rand.Read(salt) // never fails: crypto/rand ends the process first
	rand.Read(key)
	h.dummy = parameters{h.memory, h.passes, lanes, salt, key}.String()
	return h
}

// Hash hashes a password with a new salt. It returns ErrLength, ErrText, ErrBusy or the context's error.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	if err := Check(password); err != nil {
		return "", err
	}
	end, err := h.turn(ctx)
	if err != nil {
		return "", err
	}
	defer end()
	p := parameters{memory: h.memory, passes: h.passes, lanes: lanes, salt: make([]byte, saltBytes)}
	rand.Read(p.salt)
	p.key = argon2.IDKey([]byte(password), p.salt, p.passes, p.memory, p.lanes, keyBytes)
	return p.String(), nil
}

// Verify tells whether a hash is the password's, and whether it has other parameters than new hashes have. An empty hash
// stands for nobody's: it fits no password, and takes as long as another to find out. It returns ErrBusy, the context's
// error, or one for a hash that is none.
func (h *Hasher) Verify(ctx context.Context, hash, password string) (ok, outdated bool, err error) {
	if hash == "" {
		hash = h.dummy
	}
	p, err := parse(hash)
	if err != nil {
		return false, false, err
	}
	if len(password) > MaxLength {
		return false, false, nil
	}
	end, err := h.turn(ctx)
	if err != nil {
		return false, false, err
	}
	defer end()
	key := argon2.IDKey([]byte(password), p.salt, p.passes, p.memory, p.lanes, uint32(len(p.key)))
	ok = subtle.ConstantTimeCompare(key, p.key) == 1
	return ok, p.memory != h.memory || p.passes != h.passes || p.lanes != lanes || len(p.key) != keyBytes, nil
}

// turn waits for a turn; the function that it returns ends it.
func (h *Hasher) turn(ctx context.Context) (end func(), err error) {
	end = func() { <-h.turns }
	select {
	case h.turns <- struct{}{}:
		return end, nil
	default:
	}
	patience := time.NewTimer(h.wait)
	defer patience.Stop()
	select {
	case h.turns <- struct{}{}:
		return end, nil
	case <-patience.C:
		return nil, ErrBusy
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// parameters are what a PHC string holds.
type parameters struct {
	memory, passes uint32
	lanes          uint8
	salt, key      []byte
}

var encoding = base64.RawStdEncoding.Strict()

func (p parameters) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.memory, p.passes, p.lanes,
		encoding.EncodeToString(p.salt), encoding.EncodeToString(p.key))
}

func parse(hash string) (p parameters, err error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return p, errHash
	}
	var version int
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return p, errHash
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.lanes); err != nil {
		return p, errHash
	}
	if p.memory < 8*uint32(p.lanes) || p.memory > maxMemory || p.passes < 1 || p.passes > maxPasses || p.lanes < 1 {
		return p, errHash
	}
	salt, serr := encoding.DecodeString(parts[4])
	key, kerr := encoding.DecodeString(parts[5])
	if serr != nil || kerr != nil || len(salt) < 8 || len(key) < 16 || len(key) > 128 {
		return p, errHash
	}
	p.salt, p.key = salt, key
	return p, nil
}
