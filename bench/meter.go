package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	meterBar   = 1.05
	meterPairs = 24                    // of processes: where the system puts one in memory makes it faster or slower by a tenth, for all its life
	meterTurns = 20                    // of each process at each work
	meterSlice = 20 * time.Millisecond // of CPU, of one turn
)

var meterWorks = []string{"point reads", "scans", "inserts"}

// meterProgram is bench/meter, which waits for work.
type meterProgram struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// measureMeter holds the CPU that statements take with the exact row meter against the CPU that they take in SQLite as it
// is, in one process each and by turns, which begin anew many times.
func measureMeter(ctx context.Context, _ *program, _ pace) ([]verdict, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(memoryFolder(), "persqld-bench-meter-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	flags, err := meterFlags(ctx, root)
	if err != nil {
		return nil, err
	}
	var bins [2]string
	for i, flags := range []string{"", flags} {
		bins[i] = filepath.Join(dir, fmt.Sprintf("meter-%d", i))
		// As the server is built: its profile says what is worth to be inlined.
		flags = strings.TrimSpace(flags + " -pgo=" + filepath.Join(root, "cmd", "persqld", "default.pgo"))
		if err := build(ctx, root, flags, bins[i], "./bench/meter"); err != nil {
			return nil, err
		}
	}
	found := make(map[string]*meterCosts)
	for _, work := range meterWorks {
		found[work] = new(meterCosts)
	}
	for range meterPairs {
		if err := takeTurns(ctx, bins, found); err != nil {
			return nil, err
		}
	}
	var verdicts []verdict
	for _, work := range meterWorks {
		verdicts = append(verdicts, found[work].judge("row meter, "+work)...)
	}
	return verdicts, nil
}

// meterCosts is what a work's statement took of CPU, in ns.
type meterCosts struct {
	count  int // of statements in a turn
	costs  [2][]float64
	ratios []float64 // of each pair of processes the median of its turns'
}

// judge holds the ratios' median against the bar, by the upper end of its interval: only one in forty such measurements, if
// they were done again and again, would have a greater one.
func (m *meterCosts) judge(name string) []verdict {
	stock, exact := median(m.costs[0]), median(m.costs[1])
	mid := beside(name, "cpu", stock, exact, "shown", true, formatDuration)
	mid.Ratio, mid.Judged = median(m.ratios), false
	bound := upperBound(m.ratios)
	worst := beside(name, "cpu, 95 % bound", stock, exact, fmt.Sprintf("≤ %.2f ×", meterBar), bound <= meterBar, formatDuration)
	worst.Ratio = bound
	return []verdict{mid, worst}
}

// takeTurns starts a process of each and has the two take turns at every work, the other one first each time.
func takeTurns(ctx context.Context, bins [2]string, found map[string]*meterCosts) error {
	var programs [2]*meterProgram
	for i, meter := range []string{"estimated", "exact"} {
		p, err := startMeter(ctx, bins[i])
		if err != nil {
			return err
		}
		defer p.stop()
		if got, err := p.out.ReadString('\n'); err != nil || strings.TrimSpace(got) != meter {
			return fmt.Errorf("bench/meter says that its row meter is %q, want %s: %w", got, meter, err)
		}
		programs[i] = p
	}
	for _, work := range meterWorks {
		m := found[work]
		if err := m.warm(programs, work); err != nil {
			return fmt.Errorf("%s: %w", work, err)
		}
		var ratios []float64
		for turn := range meterTurns {
			var pair [2]float64
			for i := range programs {
				which := (turn + i) % 2
				cost, err := programs[which].spend(work, m.count)
				if err != nil {
					return fmt.Errorf("%s: %w", work, err)
				}
				pair[which] = cost
				m.costs[which] = append(m.costs[which], cost)
			}
			ratios = append(ratios, pair[1]/pair[0])
		}
		m.ratios = append(m.ratios, median(ratios))
	}
	return nil
}

// warm runs the work a little, and finds how many statements a turn has.
func (m *meterCosts) warm(programs [2]*meterProgram, work string) error {
	for m.count = max(m.count, 10); ; m.count *= 2 {
		var took float64
		for _, p := range programs {
			cost, err := p.spend(work, m.count)
			if err != nil {
				return err
			}
			took = max(took, cost*float64(m.count))
		}
		if took >= float64(meterSlice)/2 {
			return nil
		}
	}
}

func startMeter(ctx context.Context, bin string) (*meterProgram, error) {
	p := &meterProgram{cmd: exec.CommandContext(ctx, bin, filepath.Dir(bin))}
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start bench/meter: %w", err)
	}
	return p, nil
}

func (p *meterProgram) stop() {
	p.in.Close()
	_ = p.cmd.Wait()
}

// spend has the program run n statements, and returns the CPU of one in ns.
func (p *meterProgram) spend(work string, n int) (float64, error) {
	if _, err := fmt.Fprintf(p.in, "%d %q\n", n, work); err != nil {
		return 0, fmt.Errorf("ask bench/meter: %w", err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("read of bench/meter: %w", err)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read of bench/meter: %w", err)
	}
	return float64(ns) / float64(n), nil
}

// upperBound is the upper end of the 95 % interval of the values' median, by resampling.
func upperBound(values []float64) float64 {
	r := rand.New(rand.NewPCG(1, 2))
	medians := make([]float64, 2000)
	drawn := make([]float64, len(values))
	for i := range medians {
		for j := range drawn {
			drawn[j] = values[r.IntN(len(values))]
		}
		medians[i] = median(drawn)
	}
	slices.Sort(medians)
	return percentile(medians, 0.975)
}
