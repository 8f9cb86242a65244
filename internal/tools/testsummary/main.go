// Command testsummary runs `go test -json` with the arguments that it is given and says what came of it: a line a
// package while it goes on, each failure in full, and at the end how many tests passed, failed and were skipped, the
// skipped ones by name.
//
// Exit status: 0 if all is well; 1 if a test or a package failed, or if one was skipped where the variable CI is set
// (nothing may be left out there); 2 if go could not be run.
//
// Several runs begin with the variables of their environment. Those that "--" parts are one after the other, those that "++" parts at the same time; nothing of one
// is counted twice, or printed into a line of another:
//
//	testsummary -race ./internal/... ++ ./e2e -- PERSQLD_RACE=1 -run Crash ./e2e
//
// A test that has subtests is counted by them, and by itself only where it failed or was skipped by itself.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	exitOK     = 0
	exitFailed = 1
	exitError  = 2

	// quietTime is how long the output may stay silent before a line says what is still running.
	quietTime = 30 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
	}
	stop()
	os.Exit(status)
}

// run does all runs, whatever comes of them, and returns the exit status.
func run(ctx context.Context, args []string, out io.Writer) (int, error) {
	out = &lockedWriter{w: out}
	total := newSummary(out, "")
	for _, group := range split(args, "--") {
		runs := split(group, "++")
		parts, errs := make([]*summary, len(runs)), make([]error, len(runs))
		var wg sync.WaitGroup
		for i, one := range runs {
			wg.Go(func() { parts[i], errs[i] = goTest(ctx, one, out) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return exitError, err
		}
		for _, part := range parts {
			total.add(part)
		}
	}
	if !total.report(os.Getenv("CI") != "") {
		return exitFailed, nil
	}
	return exitOK, nil
}

// split parts arguments. There is one part at least.
func split(args []string, by string) (parts [][]string) {
	for {
		i := slices.Index(args, by)
		if i < 0 {
			return append(parts, args)
		}
		parts, args = append(parts, args[:i]), args[i+1:]
	}
}

// lockedWriter keeps what is written at once together.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// goTest does one run.
func goTest(ctx context.Context, args []string, out io.Writer) (*summary, error) {
	environ, label := os.Environ(), ""
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") && strings.Contains(args[0], "=") {
		environ = append(environ, args[0])
		label += " " + args[0]
		args = args[1:]
	}
	s := newSummary(out, label)
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = environ
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start go test: %w", err)
	}
	readErr := follow(events, s)
	waitErr := cmd.Wait()
	var exit *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exit) {
		return nil, fmt.Errorf("run go test: %w", waitErr)
	}
	s.finish(waitErr != nil)
	if readErr != nil {
		return nil, fmt.Errorf("read events: %w", readErr)
	}
	return s, nil
}

// follow hands each line of events to s, and has it say what runs when nothing was said for long.
func follow(events io.Reader, s *summary) error {
	lines := make(chan []byte)
	failed := make(chan error, 1)
	go func() {
		defer close(lines)
		r := bufio.NewReader(events)
		for {
			line, err := r.ReadBytes('\n')
			if len(line) > 0 {
				lines <- line
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					failed <- err
				}
				return
			}
		}
	}()
	quiet := time.NewTimer(quietTime)
	defer quiet.Stop()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				select {
				case err := <-failed:
					return err
				default:
					return nil
				}
			}
			if s.line(line) {
				quiet.Reset(quietTime)
			}
		case <-quiet.C:
			s.stillRunning()
			quiet.Reset(quietTime)
		}
	}
}
