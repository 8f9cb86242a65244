package password_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/password"
)

// small is as little work as argon2 can be.
var small = password.Options{Memory: 8 << 10, Passes: 1}

func TestHashAndVerify(t *testing.T) {
	ctx := t.Context()
	h := password.New(small)
	hash, err := h.Hash(ctx, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.Hash(ctx, "correct horse")
	if err != nil || again == hash {
		t.Errorf("the same hash twice, or %v", err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=8,t=1,p=1$") || strings.Contains(hash, "horse") {
		t.Errorf("hash %s", hash)
	}
	for _, tt := range []struct {
		hash, password string
		want           bool
	}{
		{hash, "correct horse", true}, {again, "correct horse", true}, {hash, "correct horsf", false}, {hash, "correct horse ", false},
		{hash, "", false}, {hash, strings.Repeat("x", 2000), false}, {"", "correct horse", false}, {"", "", false},
	} {
		ok, outdated, err := h.Verify(ctx, tt.hash, tt.password)
		if err != nil || ok != tt.want || outdated {
			t.Errorf("%q: %v, outdated %v, %v; want %v", tt.password, ok, outdated, err, tt.want)
		}
	}
	// Other parameters: it still fits, and is told to be outdated.
	other := password.New(password.Options{Memory: 16 << 10, Passes: 1})
	if ok, outdated, err := other.Verify(ctx, hash, "correct horse"); !ok || !outdated || err != nil {
		t.Errorf("with other parameters: %v, outdated %v, %v", ok, outdated, err)
	}
}

// TestKnownHash has a vector of the reference implementation (argon2 -id -t 2 -k 65536 -p 1, "password", "somesalt").
func TestKnownHash(t *testing.T) {
	const hash = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if ok, outdated, err := password.New(small).Verify(t.Context(), hash, "password"); !ok || !outdated || err != nil {
		t.Errorf("%v, outdated %v, %v", ok, outdated, err)
	}
}

func TestRefusedPasswords(t *testing.T) {
	for text, want := range map[string]error{
		"1234567": password.ErrLength, "": password.ErrLength, strings.Repeat("x", 1025): password.ErrLength,
		"with\nnewline": password.ErrText, "with\x7fdelete": password.ErrText, "not\xffutf-8": password.ErrText,
		"12345678": nil, strings.Repeat("x", 1024): nil, "pässwörter 🔑": nil,
	} {
		if _, err := password.New(small).Hash(t.Context(), text); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

func TestMalformedHashes(t *testing.T) {
	for _, hash := range []string{"x", "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=18$m=8,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=999999999,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=8,t=0,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$", "$argon2id$v=19$m=8,t=1,p=1$!$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"} {
		if ok, _, err := password.New(small).Verify(t.Context(), hash, "password"); ok || err == nil {
			t.Errorf("%s: %v, %v", hash, ok, err)
		}
	}
}

func TestHashingsAtOnce(t *testing.T) {
	h := password.New(password.Options{Memory: 8 << 10, Passes: 1, AtOnce: 1, Wait: time.Nanosecond})
	end, err := h.Turn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Hash(t.Context(), "12345678"); !errors.Is(err, password.ErrBusy) {
		t.Errorf("hash: %v", err)
	}
	if _, _, err := h.Verify(t.Context(), "", "12345678"); !errors.Is(err, password.ErrBusy) {
		t.Errorf("verify: %v", err)
	}
	end()
	if _, err := h.Hash(t.Context(), "12345678"); err != nil {
		t.Errorf("when the turn is over: %v", err)
	}
	patient := password.New(password.Options{Memory: 8 << 10, Passes: 1, AtOnce: 1, Wait: time.Hour})
	if end, err = patient.Turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer end()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := patient.Hash(ctx, "12345678"); !errors.Is(err, context.Canceled) {
		t.Errorf("of a client that left: %v", err)
	}
}
