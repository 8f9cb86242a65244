package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// machine is where a run took place.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// workReport is a work with all its rounds.
type workReport struct {
	Work   string  `json:"work"`
	Rounds []round `json:"rounds"`
}

// report is what bench/results/latest.json holds.
type report struct {
	Commit   string       `json:"commit"`
	Dirty    bool         `json:"dirty"`
	Date     time.Time    `json:"date"`
	Machine  machine      `json:"machine"`
	Ours     string       `json:"ours"`
	Seconds  float64      `json:"secondsPerMeasurement"`
	Pass     bool         `json:"pass"`
	Verdicts []verdict    `json:"verdicts"`
	Works    []workReport `json:"works"`
}

// thisMachine describes the machine; what can't be read is "unknown".
func thisMachine() machine {
	m := machine{CPU: "unknown", Cores: runtime.NumCPU(), Kernel: "unknown", Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = parseModel(string(b))
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	return m
}

// revision returns the checked-out commit and whether the tree differs from it.
func revision(root string) (commit string, dirty bool, err error) {
	head, err := exec.Command("git", "-C", root, "rev-parse", "HEAD").Output()
	if err != nil {
		return "", false, fmt.Errorf("read commit: %w", err)
	}
	// The last run's results are no change of what is measured.
	status, err := exec.Command("git", "-C", root, "status", "--porcelain", "--", ".", ":!bench/results").Output()
	if err != nil {
		return "", false, fmt.Errorf("read tree's state: %w", err)
	}
	return strings.TrimSpace(string(head)), len(status) > 0, nil
}

// write replaces the file at path.
func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make results folder: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}
