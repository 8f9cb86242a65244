package main

import (
	"strings"
	"testing"
	"time"
)

func rounds(n int, floor, ours sample) []round {
	rs := make([]round, n)
	for i := range rs {
		rs[i] = round{Floor: floor, Ours: ours}
	}
	return rs
}

func TestJudge(t *testing.T) {
	floor := sample{Rate: 1000, P50: 100 * time.Microsecond, CPU: 20 * time.Microsecond, Bytes: 120_000}
	tests := []struct {
		name  string
		bar   bar
		ours  sample
		ratio float64
		pass  bool
	}{
		{"rate reached", bar{metricRate, 0.85, atLeast}, sample{Rate: 850}, 0.85, true},
		{"rate missed", bar{metricRate, 0.85, atLeast}, sample{Rate: 840}, 0.84, false},
		{"no requests", bar{metricRate, 0.85, atLeast}, sample{}, 0, false},
		{"cpu reached", bar{metricCPU, 0.8, atLeast}, sample{CPU: 25 * time.Microsecond}, 0.8, true},
		{"cpu missed", bar{metricCPU, 0.8, atLeast}, sample{CPU: 40 * time.Microsecond}, 0.5, false},
		{"cpu not measured", bar{metricCPU, 0.8, atLeast}, sample{}, 0, false},
		{"latency reached", bar{metricP50, 1.15, atMost}, sample{P50: 115 * time.Microsecond}, 1.15, true},
		{"latency missed", bar{metricP50, 1.15, atMost}, sample{P50: 120 * time.Microsecond}, 1.2, false},
		{"memory reached", bar{metricRSS, 100_000, absolute}, sample{Bytes: 80_000}, 1.5, true},
		{"memory missed", bar{metricRSS, 100_000, absolute}, sample{Bytes: 100_000}, 1.2, false},
		{"memory not measured", bar{metricRSS, 100_000, absolute}, sample{}, 0, false},
		{"shown only", bar{metricCPU, 0, shown}, sample{CPU: 200 * time.Microsecond}, 0.1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := judge("work", tt.bar, rounds(3, floor, tt.ours))
			if got.Pass != tt.pass || got.Ratio != tt.ratio {
				t.Errorf("pass %v, ratio %v, want %v, %v", got.Pass, got.Ratio, tt.pass, tt.ratio)
			}
		})
	}
}

// One slow round of five, whichever program it hits, decides nothing.
func TestJudgeTakesMedianOfRatios(t *testing.T) {
	rs := rounds(5, sample{Rate: 100}, sample{Rate: 95})
	rs[2].Ours.Rate = 10
	rs[4].Floor.Rate = 20
	if got := judge("work", bar{metricRate, 0.9, atLeast}, rs); got.Ratio != 0.95 || !got.Pass {
		t.Errorf("got ratio %v, pass %v, want 0.95, true", got.Ratio, got.Pass)
	}
}

func TestExitStatus(t *testing.T) {
	pass := verdict{Pass: true, Judged: true}
	miss := verdict{Judged: true}
	onlyShown := verdict{Pass: true}
	tests := []struct {
		name     string
		verdicts []verdict
		want     int
	}{
		{"all pass", []verdict{pass, onlyShown, pass}, 0},
		{"one misses", []verdict{pass, miss, pass}, 1},
		{"last misses", []verdict{pass, miss}, 1},
		{"nothing judged", []verdict{onlyShown}, 1},
		{"nothing", nil, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := exitStatus(tt.verdicts); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestPrintTableNamesMisses(t *testing.T) {
	var b strings.Builder
	vs := []verdict{
		judge("fast work", bar{metricRate, 0.85, atLeast}, rounds(1, sample{Rate: 10}, sample{Rate: 10})),
		judge("slow work", bar{metricRate, 0.85, atLeast}, rounds(1, sample{Rate: 10}, sample{Rate: 1})),
	}
	if err := printTable(&b, vs); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[1], "pass") || !strings.HasSuffix(lines[2], "MISS") {
		t.Errorf("got\n%s", b.String())
	}
}

// The table is what the project promises; a work without a judged bar would
// promise nothing.
func TestEveryWorkIsJudged(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range works() {
		if seen[w.name] {
			t.Errorf("two works are named %q", w.name)
		}
		seen[w.name] = true
		judged := false
		for _, b := range w.bars {
			judged = judged || b.kind != shown
		}
		if !judged {
			t.Errorf("%s isn't judged", w.name)
		}
	}
}
