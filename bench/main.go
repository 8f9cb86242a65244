// Command bench measures persqld beside its floor, in interleaved rounds on
// one machine, and exits with 1 where a promise of speed or memory is missed.
// README.md beside it says how to read the result.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(status)
}

// options are the command's flags.
type options struct {
	only    string
	rounds  int
	seconds float64
	memory  int
	keep    bool
	dir     string
	ours    string
	floor   string
	out     string
}

func parseOptions(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.only, "only", "", "measure only works whose name matches this regular expression")
	f.IntVar(&o.rounds, "rounds", 5, "rounds, from 1")
	f.Float64Var(&o.seconds, "seconds", 3, "seconds a measurement counts; a tenth of it, at least 0.3, goes before as warm-up")
	f.IntVar(&o.memory, "memory-databases", memoryCount, "databases the memory work opens, from 1 to 5,900")
	f.BoolVar(&o.keep, "keep", false, "keep data directories and server logs")
	f.StringVar(&o.dir, "dir", os.TempDir(), "where the data directories are made; use a real disk")
	f.StringVar(&o.ours, "ours", "", "command that serves, instead of building bin/persqld and running it with serve")
	f.StringVar(&o.floor, "floor", "", "the floor's binary, instead of building it")
	f.StringVar(&o.out, "out", "", "file for the results, instead of bench/results/latest.json")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1:
		return o, errors.New("-rounds must be at least 1")
	case o.seconds <= 0:
		return o, errors.New("-seconds must be positive")
	case o.memory < 1 || o.memory > memoryMaxOpen-100:
		return o, errors.New("-memory-databases must be from 1 to 5,900")
	}
	return o, nil
}

func run(args []string) (int, error) {
	o, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return exitPass, nil
	}
	if err != nil {
		return exitError, err
	}
	selected, kept, tried, err := selectWorks(works(), historyWorks(), trials(), o.only)
	if err != nil {
		return exitError, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := moduleRoot()
	if err != nil {
		return exitError, err
	}
	dir, err := os.MkdirTemp(o.dir, "persqld-bench-")
	if err != nil {
		return exitError, fmt.Errorf("make data directory: %w", err)
	}
	if o.keep {
		fmt.Fprintln(os.Stderr, "data directories and logs:", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	floor, ours, err := contestants(ctx, o, root, dir)
	if err != nil {
		return exitError, err
	}
	r := &report{Date: time.Now().UTC(), Machine: thisMachine(), Ours: strings.Join(ours.command, " "), Seconds: o.seconds}
	if r.Commit, r.Dirty, err = revision(root); err != nil {
		return exitError, err
	}
	c := &contest{programs: []*program{floor, ours}, rounds: o.rounds, pace: paceOf(o), progress: os.Stderr}
	defer c.close()
	for i := range selected {
		w := &selected[i]
		rounds, err := c.run(ctx, w)
		if err != nil {
			return exitError, fmt.Errorf("%s: %w", w.name, err)
		}
		r.Works = append(r.Works, workReport{Work: w.name, Rounds: rounds[0]})
		for _, b := range w.bars {
			r.Verdicts = append(r.Verdicts, judge(w.name, b, rounds[0]))
		}
	}
	c.close()
	if len(kept) > 0 {
		works, verdicts, err := measureHistory(ctx, root, ours, kept, min(o.rounds, historyRounds), c.pace)
		if err != nil {
			return exitError, err
		}
		r.Works, r.Verdicts = append(r.Works, works...), append(r.Verdicts, verdicts...)
	}
	for _, t := range tried {
		fmt.Fprintln(os.Stderr, t.name)
		verdicts, err := t.run(ctx, ours, c.pace)
		if err != nil {
			return exitError, fmt.Errorf("%s: %w", t.name, err)
		}
		r.Verdicts = append(r.Verdicts, verdicts...)
	}
	status := exitStatus(r.Verdicts)
	r.Pass = status == exitPass
	if err := printTable(os.Stdout, r.Verdicts); err != nil {
		return exitError, err
	}
	out := o.out
	if out == "" {
		out = filepath.Join(root, "bench", "results", "latest.json")
	}
	if err := r.write(out); err != nil {
		return exitError, err
	}
	return status, nil
}

func paceOf(o options) pace {
	window := time.Duration(o.seconds * float64(time.Second))
	return pace{window: window, warm: max(window/10, 300*time.Millisecond), settle: 3 * time.Second, count: o.memory}
}

func selectWorks(all, history []work, trials []trial, only string) (selected, kept []work, tried []trial, err error) {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read -only: %w", err)
	}
	matching := func(list []work) (found []work) {
		for _, w := range list {
			if pattern.MatchString(w.name) {
				found = append(found, w)
			}
		}
		return found
	}
	selected, kept = matching(all), matching(history)
	for _, t := range trials {
		if pattern.MatchString(t.name) {
			tried = append(tried, t)
		}
	}
	if len(selected)+len(kept)+len(tried) == 0 {
		return nil, nil, nil, fmt.Errorf("no work matches -only %q", only)
	}
	return selected, kept, tried, nil
}

// contestants builds what no flag names.
func contestants(ctx context.Context, o options, root, dir string) (floor, ours *program, err error) {
	floor = &program{name: "floor", command: []string{o.floor, "serve"}, dir: filepath.Join(dir, "floor")}
	ours = &program{name: "ours", command: strings.Fields(o.ours), dir: filepath.Join(dir, "ours")}
	if o.floor == "" {
		floor.command[0] = filepath.Join(dir, "floor.bin")
		if err := build(ctx, root, "", floor.command[0], "./bench/floor"); err != nil {
			return nil, nil, err
		}
	}
	if o.ours == "" {
		ours.command = []string{filepath.Join(root, "bin", "persqld"), "serve"}
		flags, err := meterFlags(ctx, root)
		if err != nil {
			return nil, nil, err
		}
		if err := build(ctx, root, flags, ours.command[0], "./cmd/persqld"); err != nil {
			return nil, nil, err
		}
	}
	return floor, ours, nil
}

// meterFlags are Go's flags for a build with the exact row meter, as persqld is shipped. The floor counts nothing.
func meterFlags(ctx context.Context, root string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "run", "./internal/sqlite/rowmeter")
	cmd.Dir, cmd.Stderr, cmd.Env = root, os.Stderr, append(os.Environ(), "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build the row meter in: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func build(ctx context.Context, root, flags, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	cmd.Dir, cmd.Stderr, cmd.Env = root, os.Stderr, append(os.Environ(), "GOFLAGS="+flags)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", pkg, err)
	}
	return nil
}

// moduleRoot returns the folder of the go.mod above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod in the working directory or above")
		}
		dir = up
	}
}
