// Command testsummary runs `go test -json` with the arguments that it is given and says what came of it: a line a
// package while it goes on, each failure in full, and at the end how many tests passed, failed and were skipped, the
// skipped ones by name.
//
// Exit status: 0 if all is well; 1 if a test or a package failed, or if one was skipped where the variable CI is set
// (nothing may be left out there); 2 if go could not be run.
//
// Several runs are parted by "--", and begin with the variables of their environment:
//
//	testsummary ./... -- PERSQLD_RACE=1 -run Crash ./e2e
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
	s := newSummary(out)
	for first := true; first || len(args) > 0; first = false {
		next := args
		if i := slices.Index(args, "--"); i >= 0 {
			next, args = args[:i], args[i+1:]
		} else {
			args = nil
		}
		if err := goTest(ctx, next, s); err != nil {
			return exitError, err
		}
	}
	if !s.report(os.Getenv("CI") != "") {
		return exitFailed, nil
	}
	return exitOK, nil
}

// goTest does one run.
func goTest(ctx context.Context, args []string, s *summary) error {
	environ := os.Environ()
	s.label = ""
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") && strings.Contains(args[0], "=") {
		environ = append(environ, args[0])
		s.label += " " + args[0]
		args = args[1:]
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = environ
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("open pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start go test: %w", err)
	}
	readErr := follow(events, s)
	waitErr := cmd.Wait()
	var exit *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exit) {
		return fmt.Errorf("run go test: %w", waitErr)
	}
	s.finish(waitErr != nil)
	if readErr != nil {
		return fmt.Errorf("read events: %w", readErr)
	}
	return nil
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
