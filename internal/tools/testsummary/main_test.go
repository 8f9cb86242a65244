package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module is a module with packages of every fate.
var module = map[string]string{
	"go.mod":         "module example.test/m\n\ngo 1.26\n",
	"none/none.go":   "package none\n",
	"pass/p_test.go": "package pass\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) {}\nfunc TestTwo(t *testing.T) { t.Run(\"a\", func(*testing.T) {}); t.Run(\"b/c\", func(*testing.T) {}) }\n",
	"skip/s_test.go": "package skip\n\nimport \"testing\"\n\nfunc TestHere(t *testing.T) {}\nfunc TestAway(t *testing.T) { t.Skip(\"the moon is missing\") }\n",
	"fail/f_test.go": "package fail\n\nimport \"testing\"\n\nfunc TestGood(t *testing.T) { t.Log(\"not shown\") }\nfunc TestBad(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Error(\"it hurts here\") }) }\n",
	"die/d_test.go":  "package die\n\nimport (\"os\"; \"testing\")\n\nfunc TestLast(t *testing.T) { println(\"last words\"); os.Exit(3) }\n",
	"boom/b_test.go": "package boom\n\nimport \"testing\"\n\nfunc TestBoom(t *testing.T) { panic(\"boom\") }\n",
	"main/m_test.go": "package main\n\nimport (\"os\"; \"testing\")\n\nfunc TestMain(m *testing.M) { m.Run(); println(\"left a mess\"); os.Exit(1) }\nfunc TestFine(t *testing.T) {}\n",
	"typo/t_test.go": "package typo\n\nimport \"testing\"\n\nfunc TestNever(t *testing.T) { undefined() }\n",
}

func write(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range module {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

func TestRun(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		ci     string
		status int
		want   []string // in the output
		absent []string
		counts string
	}{
		{"pass", []string{"./pass", "./none"}, "", exitOK, []string{"ok   example.test/m/pass"}, []string{"example.test/m/none"}, "3 passed, 0 failed, 0 skipped"},
		{"skip", []string{"./skip"}, "", exitOK, []string{"Skipped:\n  example.test/m/skip TestAway: s_test.go:6: the moon is missing\n"}, nil, "1 passed, 0 failed, 1 skipped"},
		{"skip where CI is set", []string{"./skip"}, "true", exitFailed, []string{"TestAway: s_test.go:6: the moon is missing", "CI is set"}, nil, "1 passed, 0 failed, 1 skipped"},
		{"fail", []string{"./fail", "./pass"}, "", exitFailed, []string{"FAIL example.test/m/fail TestBad/sub\n", "it hurts here", "Failed:\n  example.test/m/fail TestBad/sub\n\n"}, []string{"not shown", "=== RUN"}, "4 passed, 1 failed, 0 skipped"},
		{"exit in a test", []string{"./die"}, "", exitFailed, []string{"last words", "example.test/m/die TestLast (did not end)"}, nil, "0 passed, 1 failed, 0 skipped"},
		{"panic", []string{"./boom"}, "", exitFailed, []string{"panic: boom", "example.test/m/boom TestBoom"}, nil, "0 passed, 1 failed, 0 skipped"},
		{"exit after the tests", []string{"./main"}, "", exitFailed, []string{"left a mess", "Failed:\n  example.test/m/main\n"}, nil, "1 passed, 1 failed, 0 skipped"},
		{"does not build", []string{"./typo", "./pass"}, "", exitFailed, []string{"undefined: undefined", "example.test/m/typo (does not build)"}, nil, "3 passed, 1 failed, 0 skipped"},
		{"no package", []string{"./nowhere"}, "", exitFailed, nil, nil, "0 passed, 1 failed, 0 skipped"},
		{"go's own refusal", []string{"-timeout", "never", "./pass"}, "", exitFailed, []string{"go test failed without naming a test"}, nil, "0 passed, 0 failed, 0 skipped"},
		{"two runs", []string{"./skip", "--", "MOOD=bad", "MOON=new", "./fail", "./skip"}, "", exitFailed,
			[]string{"Failed:\n  example.test/m/fail TestBad/sub MOOD=bad MOON=new\n", "TestAway: s_test.go:6: the moon is missing\n", "TestAway MOOD=bad MOON=new: s_test"}, nil, "3 passed, 1 failed, 2 skipped"},
		{"the second run can't begin", []string{"./fail", "--", "-timeout", "never", "./pass"}, "", exitFailed, []string{"go test failed without naming a test"}, nil, "1 passed, 1 failed, 0 skipped"},
		{"two at the same time", []string{"./fail", "++", "MOON=new", "./pass", "./skip", "--", "./pass"}, "", exitFailed,
			[]string{"Failed:\n  example.test/m/fail TestBad/sub\n", "TestAway MOON=new: s_test", "ok   example.test/m/pass"}, nil, "8 passed, 1 failed, 1 skipped"},
		{"one of two can't begin", []string{"./pass", "++", "-timeout", "never", "./fail"}, "", exitFailed, []string{"go test failed without naming a test"}, nil, "3 passed, 0 failed, 0 skipped"},
		{"no test", []string{"-run", "Nothing", "./pass"}, "", exitFailed, []string{"No test ran"}, []string{"ok  "}, "0 passed, 0 failed, 0 skipped"},
	}
	write(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("CI", tt.ci)
			t.Setenv("GOFLAGS", "") // this module's, not that of the packages here
			var out bytes.Buffer
			status, err := run(t.Context(), tt.args, &out)
			if err != nil || status != tt.status {
				t.Errorf("exit status %d, want %d: %v", status, tt.status, err)
			}
			text := out.String()
			for _, want := range tt.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in the output", want)
				}
			}
			for _, absent := range tt.absent {
				if strings.Contains(text, absent) {
					t.Errorf("%q is in the output", absent)
				}
			}
			lines := strings.Split(strings.TrimSpace(text), "\n")
			if got := lines[len(lines)-1]; got != tt.counts {
				t.Errorf("counts %q, want %q", got, tt.counts)
			}
			if t.Failed() {
				t.Logf("the output:\n%s", text)
			}
		})
	}
}

// What runs when nothing has ended for long is named; of a test with subtests, those.
func TestStillRunning(t *testing.T) {
	var out bytes.Buffer
	s := newSummary(&out, "")
	for _, line := range []string{
		`{"Action":"start","Package":"p"}`,
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"pass","Package":"p","Test":"TestA"}`,
		`{"Action":"run","Package":"p","Test":"TestB"}`,
		`{"Action":"run","Package":"p","Test":"TestB/slow"}`,
		`{"Action":"start","Package":"q"}`,
	} {
		s.line([]byte(line))
	}
	s.stillRunning()
	if got, want := out.String(), "...  p: TestB/slow\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// Were go test to end here, that test would be the one that failed.
	s.finish(true)
	if want := []string{"p TestB/slow (did not end)"}; !slices.Equal(s.failures, want) || s.passed != 1 {
		t.Errorf("failures %q, want %q; %d passed", s.failures, want, s.passed)
	}
}

// What takes long is named at the end, the longest first; of a test with subtests, it alone.
func TestSlowest(t *testing.T) {
	var out bytes.Buffer
	s := newSummary(&out, " MOON=new")
	for _, line := range []string{
		`{"Action":"start","Package":"p"}`,
		`{"Action":"pass","Package":"p","Test":"TestQuick","Elapsed":9.9}`,
		`{"Action":"pass","Package":"p","Test":"TestSlow","Elapsed":10}`,
		`{"Action":"run","Package":"p","Test":"TestParts"}`,
		`{"Action":"pass","Package":"p","Test":"TestParts/one","Elapsed":70}`,
		`{"Action":"pass","Package":"p","Test":"TestParts","Elapsed":71.5}`,
		`{"Action":"pass","Package":"p","Elapsed":91.5}`,
	} {
		s.line([]byte(line))
	}
	s.report(true)
	if got, want := out.String(), "\nSlowest:\n    71.5 s  p TestParts MOON=new\n    10.0 s  p TestSlow MOON=new\n\n3 passed"; !strings.Contains(got, want) {
		t.Errorf("got %q, which has no %q", got, want)
	}
}
