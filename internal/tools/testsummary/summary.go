package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// event is a line of `go test -json` (go doc cmd/test2json, and go help buildjson for those of the build).
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	Elapsed     float64 // seconds
	ImportPath  string  // of a build's event
	FailedBuild string  // of a package that failed before it ran: what could not be built
}

// test is a test or subtest that has begun.
type test struct {
	name      string
	parent    *test
	output    []string
	outcome   string // "pass", "fail", "skip", or "" while it runs
	subtests  bool
	failedSub bool
}

// pkg is a package that has begun.
type pkg struct {
	name   string
	tests  map[string]*test
	order  []*test
	output []string // that belongs to no test
}

// summary takes the events of a run of go test, and counts.
type summary struct {
	out    io.Writer
	label  string // of the run: its variables
	pkgs   map[string]*pkg
	builds map[string][]string // what the compiler said, until it failed

	passed   int
	failures []string
	skips    []string
	slow     []timed
	broken   bool // a go test failed, and no test or package says why
}

// timed is a test with the time that it took, its subtests' included.
type timed struct {
	seconds float64
	name    string
}

const (
	// slowest is how many tests are named that took slowAfter seconds or longer.
	slowest   = 15
	slowAfter = 10
)

func newSummary(out io.Writer, label string) *summary {
	return &summary{out: out, label: label, pkgs: map[string]*pkg{}, builds: map[string][]string{}}
}

// line takes one line of go test's output and tells whether something was printed for it.
func (s *summary) line(line []byte) bool {
	var e event
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		fmt.Fprintf(s.out, "%s\n", strings.TrimRight(string(line), "\n"))
		return true
	}
	switch e.Action {
	case "build-output":
		s.builds[e.ImportPath] = append(s.builds[e.ImportPath], e.Output)
		return false
	case "build-fail":
		fmt.Fprint(s.out, strings.Join(s.builds[e.ImportPath], ""))
		delete(s.builds, e.ImportPath)
		return true
	}
	p := s.pkgs[e.Package]
	if p == nil {
		p = &pkg{name: e.Package, tests: map[string]*test{}}
		s.pkgs[e.Package] = p
	}
	if e.Test != "" {
		return s.ofTest(p, p.test(e.Test), e)
	}
	switch e.Action {
	case "output":
		p.output = append(p.output, e.Output)
		return false
	case "pass", "fail":
		s.end(p, e)
		return true
	case "skip": // it has no tests
		delete(s.pkgs, e.Package)
	}
	return false
}

// test is the package's test of this name; of a subtest, its parents are begun too.
func (p *pkg) test(name string) *test {
	if t := p.tests[name]; t != nil {
		return t
	}
	t := &test{name: name}
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		// A subtest's own name may have slashes: its parent is the longest beginning that is a test.
		for ; i > 0; i = strings.LastIndexByte(name[:i], '/') {
			if parent := p.tests[name[:i]]; parent != nil {
				t.parent = parent
				parent.subtests = true
				break
			}
		}
	}
	p.tests[name] = t
	p.order = append(p.order, t)
	return t
}

func (s *summary) ofTest(p *pkg, t *test, e event) bool {
	if e.Elapsed >= slowAfter && t.parent == nil {
		s.slow = append(s.slow, timed{e.Elapsed, short(p.name) + " " + t.name + s.label})
	}
	switch e.Action {
	case "output":
		if !chatter(e.Output) {
			t.output = append(t.output, e.Output)
		}
	case "pass", "skip":
		t.outcome = e.Action
		if e.Action == "pass" {
			t.output = nil
		}
	case "fail":
		t.outcome = "fail"
		for up := t.parent; up != nil; up = up.parent {
			up.failedSub = true
		}
		s.printFailure(p, t)
		return true
	}
	return false
}

// chatter tells whether a line only says that a test began or went on.
func chatter(line string) bool {
	line = strings.TrimLeft(line, " ")
	for _, word := range []string{"=== RUN", "=== PAUSE", "=== CONT", "=== NAME"} {
		if strings.HasPrefix(line, word) {
			return true
		}
	}
	return false
}

func (s *summary) printFailure(p *pkg, t *test) {
	fmt.Fprintf(s.out, "\nFAIL %s %s\n%s", p.name, t.name, strings.Join(t.output, ""))
}

// end counts a package that has ended.
func (s *summary) end(p *pkg, e event) {
	delete(s.pkgs, p.name)
	passed, failed, skipped := s.passed, len(s.failures), len(s.skips)
	for _, t := range p.order {
		s.count(p, t)
	}
	if e.Action == "pass" && len(p.order) == 0 {
		return // none of its tests was asked for
	}
	if e.Action == "fail" {
		switch {
		case e.FailedBuild != "":
			s.fail(p.name + " (does not build)")
		case len(s.failures) == failed:
			s.fail(p.name)
		}
		fmt.Fprintf(s.out, "%s", strings.Join(p.output, ""))
	}
	line := fmt.Sprintf("%-4s %-36s %6.1f s  %d passed", map[string]string{"pass": "ok", "fail": "FAIL"}[e.Action],
		short(p.name), e.Elapsed, s.passed-passed)
	if n := len(s.failures) - failed; n > 0 {
		line += fmt.Sprintf(", %d failed", n)
	}
	if n := len(s.skips) - skipped; n > 0 {
		line += fmt.Sprintf(", %d skipped", n)
	}
	fmt.Fprintln(s.out, line+s.label)
}

func (s *summary) count(p *pkg, t *test) {
	switch t.outcome {
	case "skip":
		s.skips = append(s.skips, p.name+" "+t.name+s.label+reason(t.output))
	case "fail":
		if !t.failedSub {
			s.fail(p.name + " " + t.name)
		}
	case "pass":
		if !t.subtests {
			s.passed++
		}
	default: // the process ended under it
		if !t.subtests || !t.hasOpenSub(p) {
			s.printFailure(p, t)
			s.fail(p.name + " " + t.name + " (did not end)")
		}
	}
}

// hasOpenSub tells whether a subtest of t is one that did not end, which is then told of instead.
func (t *test) hasOpenSub(p *pkg) bool {
	return slices.ContainsFunc(p.order, func(sub *test) bool { return sub.parent == t && sub.outcome == "" })
}

func (s *summary) fail(what string) { s.failures = append(s.failures, what+s.label) }

// reason is what a skipped test said last, before go test's own line.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "--- SKIP") {
			return ": " + line
		}
	}
	return ""
}

// stillRunning prints which packages and tests have not ended.
func (s *summary) stillRunning() {
	for _, name := range slices.Sorted(maps.Keys(s.pkgs)) {
		p := s.pkgs[name]
		var running []string
		for _, t := range p.order {
			if t.outcome == "" && !(t.subtests && t.hasOpenSub(p)) {
				running = append(running, t.name)
			}
		}
		if len(running) > 0 {
			if len(running) > 3 {
				running = append(running[:3], fmt.Sprintf("and %d more", len(running)-3))
			}
			fmt.Fprintf(s.out, "...  %s: %s\n", short(name), strings.Join(running, ", "))
		}
	}
}

// add adds what another run counted.
func (s *summary) add(other *summary) {
	s.passed += other.passed
	s.failures = append(s.failures, other.failures...)
	s.skips = append(s.skips, other.skips...)
	s.slow = append(s.slow, other.slow...)
	s.broken = s.broken || other.broken
}

// finish ends the run, and what it left open. failed says that go test itself reported a failure.
func (s *summary) finish(failed bool) {
	for _, name := range slices.Sorted(maps.Keys(s.pkgs)) {
		p := s.pkgs[name]
		if len(p.order) > 0 || len(p.output) > 0 {
			s.end(p, event{Action: "fail", Package: name})
		}
	}
	s.broken = failed && len(s.failures) == 0
}

// short is a package's name without what all of them begin with.
func short(name string) string { return strings.TrimPrefix(name, "github.com/persqld/") }

// report prints what took longest and the counts and tells whether all is well. strict says that a skipped test is not.
func (s *summary) report(strict bool) bool {
	if len(s.slow) > 0 {
		slices.SortStableFunc(s.slow, func(a, b timed) int { return cmp.Compare(b.seconds, a.seconds) })
		fmt.Fprintln(s.out, "\nSlowest:")
		for _, t := range s.slow[:min(slowest, len(s.slow))] {
			fmt.Fprintf(s.out, "  %6.1f s  %s\n", t.seconds, t.name)
		}
	}
	if len(s.failures) > 0 {
		fmt.Fprintln(s.out, "\nFailed:")
		for _, f := range s.failures {
			fmt.Fprintln(s.out, " ", f)
		}
	}
	if len(s.skips) > 0 {
		fmt.Fprintln(s.out, "\nSkipped:")
		for _, sk := range s.skips {
			fmt.Fprintln(s.out, " ", sk)
		}
	}
	well := len(s.failures) == 0 && !s.broken
	switch {
	case s.broken:
		fmt.Fprintln(s.out, "\ngo test failed without naming a test.")
	case s.passed+len(s.failures)+len(s.skips) == 0:
		fmt.Fprintln(s.out, "\nNo test ran.")
		well = false
	case strict && len(s.skips) > 0:
		fmt.Fprintln(s.out, "\nCI is set, and a skipped test counts as a failure there.")
		well = false
	}
	fmt.Fprintf(s.out, "\n%d passed, %d failed, %d skipped\n", s.passed, len(s.failures), len(s.skips))
	return well
}
