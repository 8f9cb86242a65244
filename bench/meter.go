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
	meterPairs = 200
	meterSlice = 20 * time.Millisecond // of CPU, of one program's turn
)

// meterProgram is bench/meter, which waits for work.
type meterProgram struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// measureMeter holds the CPU that statements take with the exact row meter against the CPU that they take in SQLite as it
// is, in one process each and by turns. The bound is of the median ratio of a turn to the other program's beside it: only one
// in forty such measurements, if they were done again and again, would have a greater one.
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
	var programs [2]*meterProgram
	for i, v := range []struct{ name, flags string }{{"estimated", ""}, {"exact", flags}} {
		p, err := startMeter(ctx, root, filepath.Join(dir, v.name), v.flags)
		if err != nil {
			return nil, err
		}
		defer p.stop()
		if got, err := p.out.ReadString('\n'); err != nil || strings.TrimSpace(got) != v.name {
			return nil, fmt.Errorf("bench/meter says that its row meter is %q, want %s: %w", got, v.name, err)
		}
		programs[i] = p
	}
	var verdicts []verdict
	for _, work := range []string{"point reads", "scans", "inserts"} {
		v, err := compareMeters(ctx, programs, work)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", work, err)
		}
		verdicts = append(verdicts, v...)
	}
	return verdicts, nil
}

func startMeter(ctx context.Context, root, dir, flags string) (*meterProgram, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	bin := filepath.Join(dir, "meter")
	// As the server is built: its profile says what is worth to be inlined.
	flags = strings.TrimSpace(flags + " -pgo=" + filepath.Join(root, "cmd", "persqld", "default.pgo"))
	if err := build(ctx, root, flags, bin, "./bench/meter"); err != nil {
		return nil, err
	}
	p := &meterProgram{cmd: exec.CommandContext(ctx, bin, dir)}
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

// compareMeters has the two take turns at a work, the other one first each time.
func compareMeters(ctx context.Context, programs [2]*meterProgram, work string) ([]verdict, error) {
	n := 10
	for { // warm up, and find how many statements a turn has
		var took float64
		for _, p := range programs {
			one, err := p.spend(work, n)
			if err != nil {
				return nil, err
			}
			took = max(took, one*float64(n))
		}
		if took >= float64(meterSlice) {
			break
		}
		n *= 2
	}
	var costs [2][]float64
	var ratios []float64
	for i := range meterPairs {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var pair [2]float64
		for turn := range programs {
			which := (i + turn) % 2
			one, err := programs[which].spend(work, n)
			if err != nil {
				return nil, err
			}
			pair[which] = one
			costs[which] = append(costs[which], one)
		}
		ratios = append(ratios, pair[1]/pair[0])
	}
	name, bar := "row meter, "+work, fmt.Sprintf("≤ %.2f ×", meterBar)
	mid := beside(name, "cpu", median(costs[0]), median(costs[1]), "shown", true, formatDuration)
	mid.Ratio, mid.Judged = median(ratios), false
	worst := beside(name, "cpu, 95 % bound", median(costs[0]), median(costs[1]), bar, false, formatDuration)
	worst.Ratio = upperBound(ratios)
	worst.Pass = worst.Ratio <= meterBar
	return []verdict{mid, worst}, nil
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
