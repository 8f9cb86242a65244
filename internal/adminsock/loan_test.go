package adminsock_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/adminsock"
)

// lender serves loans of one file, and tells of each that ended.
func lender(t *testing.T, path, file string) (done <-chan string, stop func()) {
	t.Helper()
	l, err := adminsock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 10)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- adminsock.Serve(ctx, l, func(ctx context.Context, op string, _ json.RawMessage) (any, error) {
			switch op {
			case "wait":
				<-ctx.Done()
				ended <- op
				return nil, ctx.Err()
			case "refuse":
				return nil, &adminsock.Error{Message: "no", Code: "refused"}
			case "plain":
				return 7, nil
			}
			f, err := os.Open(file)
			if err != nil {
				return nil, err
			}
			return &adminsock.Loan{Result: op, File: f, Done: func() { f.Close(); ended <- op }}, nil
		})
	}()
	return ended, func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

func await(t *testing.T, done <-chan string, want string) {
	t.Helper()
	select {
	case got := <-done:
		if got != want {
			t.Errorf("%s ended, want %s", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%s did not end", want)
	}
}

// A lent file is read as it is, and the loan ends when it is given back, when the client goes, and with the server: then Return fails.
func TestBorrow(t *testing.T) {
	dir := t.TempDir()
	path, file := filepath.Join(dir, "admin.sock"), filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got string
	if _, err := adminsock.Borrow(t.Context(), path, "lend", nil, &got); !errors.Is(err, adminsock.ErrNoServer) {
		t.Errorf("without a server: %v", err)
	}
	done, stop := lender(t, path, file)
	b, err := adminsock.Borrow(t.Context(), path, "lend", nil, &got)
	if err != nil || got != "lend" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := os.Remove(file); err != nil { // it is the open file that counts
		t.Fatal(err)
	}
	text, err := io.ReadAll(b)
	if err != nil || string(text) != "content" {
		t.Errorf("read %q, %v", text, err)
	}
	select {
	case op := <-done:
		t.Errorf("%s ended before it was given back", op)
	default:
	}
	if err := b.Return(); err != nil {
		t.Error(err)
	}
	await(t, done, "lend")

	var refused *adminsock.Error
	if _, err := adminsock.Borrow(t.Context(), path, "refuse", nil, &got); !errors.As(err, &refused) || refused.Code != "refused" {
		t.Errorf("refused: %v", err)
	}
	if _, err := adminsock.Borrow(t.Context(), path, "plain", nil, &got); !errors.As(err, &refused) || refused.Code != "bad_request" {
		t.Errorf("what lends nothing: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := adminsock.Borrow(ctx, path, "wait", nil, &got); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	await(t, done, "wait")

	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err = adminsock.Borrow(t.Context(), path, "lend", nil, &got)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	await(t, done, "lend")
	if err := b.Return(); err == nil {
		t.Error("given back to a server that ended")
	}
}
