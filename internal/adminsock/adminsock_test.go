package adminsock_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/adminsock"
)

func echo(_ context.Context, op string, args json.RawMessage) (any, error) {
	switch op {
	case "echo":
		return args, nil
	case "refuse":
		return nil, &adminsock.Error{Message: "no", Code: "refused", Hint: "ask again"}
	}
	return nil, errors.New("what?")
}

// serve runs a server on path until stop is called.
func serve(t *testing.T, path string) (stop func()) {
	t.Helper()
	l, err := adminsock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- adminsock.Serve(ctx, l, echo) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestCall(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 30), strings.Repeat("path", 30))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"short": t.TempDir(), "long": long} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "admin.sock")
			var got string
			if err := adminsock.Call(t.Context(), path, "echo", "x", &got); !errors.Is(err, adminsock.ErrNoServer) {
				t.Fatalf("before the server: %v", err)
			}
			stop := serve(t, path)
			info, err := os.Stat(path)
			if err != nil || info.Mode() != os.ModeSocket|0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if err := adminsock.Call(t.Context(), path, "echo", "hello", &got); err != nil || got != "hello" {
				t.Errorf("echo %q, %v", got, err)
			}
			var refused *adminsock.Error
			err = adminsock.Call(t.Context(), path, "refuse", nil, &got)
			if !errors.As(err, &refused) || *refused != (adminsock.Error{Message: "no", Code: "refused", Hint: "ask again"}) {
				t.Errorf("refused: %#v", err)
			}
			err = adminsock.Call(t.Context(), path, "other", nil, &got)
			if !errors.As(err, &refused) || refused.Message != "what?" {
				t.Errorf("other: %#v", err)
			}
			stop()
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is still there: %v", err)
			}
			if err := adminsock.Call(t.Context(), path, "echo", "x", &got); !errors.Is(err, adminsock.ErrNoServer) {
				t.Errorf("after the server: %v", err)
			}
		})
	}
}

// A killed server leaves its socket: nobody answers there, and the next server takes its place.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	var got string
	if err := adminsock.Call(t.Context(), path, "echo", "x", &got); !errors.Is(err, adminsock.ErrNoServer) {
		t.Errorf("a socket without a server: %v", err)
	}
	stop := serve(t, path)
	defer stop()
	if err := adminsock.Call(t.Context(), path, "echo", "x", &got); err != nil {
		t.Error(err)
	}
}
