package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Token is the admin token that a server is started with. It has no checksum, as an operator's own.
const Token = "psql_live_e2eAdminTokenOfTheEndToEndTests00"

// startLimit bounds the time from the start of the process to readiness.
const startLimit = 30 * time.Second

// Options say how a server is started. The zero value is a new data directory, Token and the defaults.
type Options struct {
	Data    string   // the data directory; a new one in the test's temporary folder if empty
	Env     []string // settings, "PERSQLD_X=y"
	NoToken bool     // leave PERSQLD_TOKEN out, so that the first start makes one
	Public  bool     // PERSQLD_BASE_URL is where it listens, for those who hold the one against the other
}

// Server is a running persqld.
type Server struct {
	URL  string // http://127.0.0.1:port
	Addr string // 127.0.0.1:port
	Data string
	bin  string
	cmd  *exec.Cmd
	out  safeBuffer // stdout
	log  safeBuffer // stderr
	done chan struct{}
	err  error // of Wait, once done is closed
}

// Run starts a server and waits until it is ready.
func Run(bin string, o Options) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "http://" + addr, Addr: addr, Data: o.Data, bin: bin, done: make(chan struct{})}
	s.cmd = exec.Command(bin, "serve")
	s.cmd.Env = append(Environ(), "PERSQLD_LISTEN="+addr, "PERSQLD_DATA="+o.Data)
	if !o.NoToken {
		s.cmd.Env = append(s.cmd.Env, "PERSQLD_TOKEN="+Token)
	}
	if o.Public {
		s.cmd.Env = append(s.cmd.Env, "PERSQLD_BASE_URL="+s.URL)
	}
	s.cmd.Env = append(s.cmd.Env, o.Env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.log
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start persqld: %w", err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	if err := s.awaitReady(); err != nil {
		_ = s.cmd.Process.Kill()
		<-s.done
		return nil, fmt.Errorf("%w\nstdout: %s\nstderr: %s", err, s.Out(), s.Log())
	}
	if err := loadDocument(s.URL); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// Start is Run for a test: the server ends with it, and its log is shown if the test failed.
func Start(t testing.TB, bin string, o Options) *Server {
	t.Helper()
	if o.Data == "" {
		o.Data = filepath.Join(t.TempDir(), "data")
	}
	s, err := Run(bin, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-s.done:
		default:
			if code := s.Stop(t); code != 0 && !t.Failed() {
				t.Errorf("SIGTERM: exit status %d, want 0", code)
			}
		}
		s.CheckLog(t)
		if t.Failed() {
			t.Logf("log of the server:\n%s", Tail(s.Log(), 8000))
		}
	})
	return s
}

// CheckLog fails the test where the log tells of a panic or a data race.
func (s *Server) CheckLog(t testing.TB) {
	t.Helper()
	for _, bad := range []string{"DATA RACE", "panic:", "goroutine 1 ["} {
		if log := s.Log(); strings.Contains(log, bad) {
			t.Errorf("the server's log has %q:\n%s", bad, Tail(log[strings.Index(log, bad):], 8000))
		}
	}
}

func (s *Server) awaitReady() error {
	limit := time.After(startLimit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return fmt.Errorf("persqld ended before it was ready: %w", s.err)
		case <-limit:
			return fmt.Errorf("persqld is not ready after %v", startLimit)
		case <-tick.C:
			resp, err := http.Get(s.URL + "/readyz")
			if err != nil {
				continue
			}
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
}

// Stop sends SIGTERM and returns the exit status. It fails the test if that takes more than the 10 seconds of the
// contract, with something added for a loaded machine.
func (s *Server) Stop(t testing.TB) int {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("send SIGTERM: %v", err)
	}
	return s.Wait(t, 15*time.Second)
}

// PID is the number of the server's process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Signal sends a signal.
func (s *Server) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("send %v: %v", sig, err)
	}
}

// Wait waits for the end and returns the exit status.
func (s *Server) Wait(t testing.TB, limit time.Duration) int {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(limit):
		s.Kill()
		t.Errorf("the server still ran after %v; its log:\n%s", limit, Tail(s.Log(), 8000))
	}
	return s.cmd.ProcessState.ExitCode()
}

// Kill ends the process at once, as kill -9 does.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// Log is what the server wrote to stderr, Out what it wrote to stdout.
func (s *Server) Log() string { return s.log.String() }

// Out is what the server wrote to stdout.
func (s *Server) Out() string { return s.out.String() }

// CLI runs another subcommand on the server's data directory.
func (s *Server) CLI(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return CLI(t, s.bin, s.Data, args...)
}

// CLI runs a subcommand of the binary on a data directory.
func CLI(t testing.TB, bin, data string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = append(Environ(), "PERSQLD_DATA="+data)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("run %v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// JSONOf runs a subcommand with --json, which must succeed, and returns its object.
func (s *Server) JSONOf(t testing.TB, args ...string) map[string]any {
	t.Helper()
	out, errs, code := s.CLI(t, append(args, "--json")...)
	if code != 0 {
		t.Fatalf("%v: exit status %d: %s%s", args, code, out, errs)
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v printed no JSON: %v: %q", args, err, out)
	}
	return v
}

// Client is a client with a token.
func (s *Server) Client(t testing.TB, token string) *Client {
	return NewClient(t, s.URL, token, s.Data)
}

// Environ is the environment of the test without what would change the server's settings.
func Environ() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PERSQLD_") && !strings.HasPrefix(e, "PERSQL_") {
			env = append(env, e)
		}
	}
	return env
}

// freeAddr is a loopback address that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// FreeAddr is freeAddr for a test.
func FreeAddr(t testing.TB) string {
	t.Helper()
	addr, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// Tail is at most the last n bytes of s.
func Tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// safeBuffer is a buffer that one writes while another reads.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// SignalIfRunning sends a signal to a process that may have ended.
func (s *Server) SignalIfRunning(sig os.Signal) { _ = s.cmd.Process.Signal(sig) }
