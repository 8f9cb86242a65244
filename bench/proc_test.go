package main

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	tests := []struct {
		name, stat string
		want       time.Duration
		fails      bool
	}{
		{"plain", "12 (floor) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 1 1 1", 3 * time.Second, false},
		{"name with spaces and parentheses", "12 (a ) S 9 (b)) R 1 12 12 0 -1 4194304 100 0 0 0 1 2 0 0", 30 * time.Millisecond, false},
		{"empty", "", 0, true},
		{"cut", "12 (floor) S 1 12", 0, true},
		{"no number", "12 (floor) S 1 12 12 0 -1 4194304 100 0 0 0 x 50 0 0", 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStat([]byte(tt.stat))
			if (err != nil) != tt.fails || got != tt.want {
				t.Errorf("got %v, %v, want %v, fails %v", got, err, tt.want, tt.fails)
			}
		})
	}
}

func TestParseResident(t *testing.T) {
	tests := []struct {
		name, status string
		want         int64
		fails        bool
	}{
		{"plain", "Name:\tfloor\nVmHWM:\t  900 kB\nVmRSS:\t   512 kB\n", 512 * 1024, false},
		{"missing", "Name:\tfloor\n", 0, true},
		{"other unit", "VmRSS:\t 5 MB\n", 0, true},
		{"no number", "VmRSS:\t x kB\n", 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseResident(tt.status)
			if (err != nil) != tt.fails || got != tt.want {
				t.Errorf("got %v, %v, want %v, fails %v", got, err, tt.want, tt.fails)
			}
		})
	}
}

func TestOwnProcess(t *testing.T) {
	if _, err := cpuTime(os.Getpid()); err != nil {
		t.Error(err)
	}
	if n, err := residentBytes(os.Getpid()); err != nil || n <= 0 {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestParseModel(t *testing.T) {
	if got, want := parseModel("processor\t: 0\nmodel name\t: Some CPU: fast\n"), "Some CPU: fast"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := parseModel(""); got != "unknown" {
		t.Errorf("got %q, want unknown", got)
	}
}
