package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	benchToken     = "psql_live_benchbenchbenchbenchbenchbenchbench42"
	benchNamespace = "bench"
	readyTimeout   = 30 * time.Second
	stopTimeout    = 20 * time.Second
)

var errNotReady = errors.New("server isn't ready")

// program is a contestant.
type program struct {
	name    string        // "floor", "ours", or what is set otherwise in it
	command []string      // without settings; they come by environment
	env     []string      // settings that aren't every program's
	dir     string        // data directories and logs of its servers
	warm    time.Duration // the least warm-up
	// settle, if there is one, waits until its server does nothing any more that requests began.
	settle func(context.Context, *server) error
}

// server is a running program with a data directory of its own.
type server struct {
	program *program
	address string
	cmd     *exec.Cmd
	log     string // path of its standard output and error
	exited  chan error
}

// start starts the program on a free port with the named data directory, made
// if missing, and returns when /readyz answers 200. The context's end kills it.
func (p *program) start(ctx context.Context, data string, maxOpen int) (*server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	s := &server{program: p, address: address, log: filepath.Join(p.dir, data+".log"), exited: make(chan error, 1)}
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open server log: %w", err)
	}
	defer out.Close()
	s.cmd = exec.CommandContext(ctx, p.command[0], p.command[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.Env = append(cleanEnvironment(os.Environ()),
		"PERSQLD_LISTEN="+address,
		"PERSQLD_DATA="+filepath.Join(p.dir, data),
		"PERSQLD_TOKEN="+benchToken,
		"PERSQLD_NAMESPACE="+benchNamespace,
		"PERSQLD_LOG=warn")
	s.cmd.Env = append(s.cmd.Env, p.env...)
	if maxOpen > 0 {
		s.cmd.Env = append(s.cmd.Env, "PERSQLD_MAX_OPEN="+strconv.Itoa(maxOpen))
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() { s.exited <- s.cmd.Wait() }()
	if err := s.waitReady(ctx); err != nil {
		s.stop()
		return nil, fmt.Errorf("start %s: %w\n%s", p.name, err, s.logTail())
	}
	return s, nil
}

func (s *server) pid() int { return s.cmd.Process.Pid }

func (s *server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/readyz", nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				http.DefaultClient.CloseIdleConnections()
				return nil
			}
		}
		select {
		case err := <-s.exited:
			s.exited <- err
			return fmt.Errorf("%w: it ended: %v", errNotReady, err)
		case <-ctx.Done():
			return fmt.Errorf("%w within %s", errNotReady, readyTimeout)
		case <-again.C:
		}
	}
}

// stop ends the server in order, or kills it after stopTimeout.
func (s *server) stop() {
	// One that is gone already needs no signal.
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

// logTail returns the end of what the server printed.
func (s *server) logTail() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// cleanEnvironment leaves out the caller's own settings of persqld, so that a
// run measures the defaults.
func cleanEnvironment(env []string) []string {
	var kept []string
	for _, e := range env {
		if !strings.HasPrefix(e, "PERSQLD_") {
			kept = append(kept, e)
		}
	}
	return kept
}
