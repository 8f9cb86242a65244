package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"
)

// metric is one number of a sample that is judged.
type metric struct {
	Name string
	// of returns the number; its unit is what format prints.
	of     func(sample) float64
	format func(float64) string
	// more is set where a greater number is better.
	more bool
}

var (
	metricRate = metric{"rate", func(s sample) float64 { return s.Rate }, formatRate, true}
	metricP50  = metric{"p50", func(s sample) float64 { return float64(s.P50) }, formatDuration, false}
	metricP99  = metric{"p99", func(s sample) float64 { return float64(s.P99) }, formatDuration, false}
	metricCPU  = metric{"cpu/request", func(s sample) float64 { return float64(s.CPU) }, formatDuration, false}
	metricRSS  = metric{"rss/database", func(s sample) float64 { return float64(s.Bytes) }, formatBytes, false}
)

// bar is what a work must reach in one metric.
type bar struct {
	metric metric
	// limit is what the median must be at least (atLeast), at most (atMost),
	// or, of ours alone and not as a ratio, less than (absolute).
	limit float64
	kind  barKind
}

type barKind int

const (
	atLeast  barKind = iota // ratio, 1 is as good as the floor, greater is better
	atMost                  // ratio of ours to the floor's
	absolute                // ours alone
	shown                   // not judged
)

// rateBars judges rate and CPU a request by one threshold.
func rateBars(limit float64) []bar {
	return []bar{{metricRate, limit, atLeast}, {metricCPU, limit, atLeast}}
}

// round is one round's pair of samples.
type round struct {
	First string `json:"first"` // which program was measured first
	Floor sample `json:"floor"`
	Ours  sample `json:"ours"`
}

// verdict is one line of the table.
type verdict struct {
	Work   string  `json:"work"`
	Metric string  `json:"metric"`
	Floor  float64 `json:"floorMedian"`
	Ours   float64 `json:"oursMedian"`
	Ratio  float64 `json:"medianRatio"`
	Bar    string  `json:"bar"`
	Pass   bool    `json:"pass"`
	Judged bool    `json:"judged"`
	// Skipped says why nothing was measured.
	Skipped string `json:"skipped,omitempty"`

	format func(float64) string
}

// judge holds a work's rounds against one bar. The ratio is the median of the
// rounds' ratios, since a round's two samples lie next to each other in time;
// what can't be measured (no request, no time) is a miss.
func judge(work string, b bar, rounds []round) verdict {
	var floors, ours, ratios []float64
	for _, r := range rounds {
		f, o := b.metric.of(r.Floor), b.metric.of(r.Ours)
		floors, ours = append(floors, f), append(ours, o)
		if b.kind != atMost && !b.metric.more {
			ratios = append(ratios, f/o)
		} else {
			ratios = append(ratios, o/f)
		}
	}
	v := verdict{
		Work: work, Metric: b.metric.Name, format: b.metric.format, Judged: b.kind != shown,
		Floor: median(floors), Ours: median(ours), Ratio: median(ratios),
	}
	switch b.kind {
	case atLeast:
		v.Bar, v.Pass = fmt.Sprintf("≥ %.2f ×", b.limit), v.Ratio >= b.limit
	case atMost:
		v.Bar, v.Pass = fmt.Sprintf("≤ %.2f ×", b.limit), v.Ratio <= b.limit
	case absolute:
		v.Bar, v.Pass = "< "+b.metric.format(b.limit), v.Ours < b.limit
	case shown:
		v.Bar, v.Pass = "shown", true
	}
	if math.IsNaN(v.Ratio) || math.IsInf(v.Ratio, 0) {
		if b.kind == shown || b.kind == absolute && v.Ours > 0 {
			v.Ratio = 0 // JSON knows neither
		} else {
			v.Ratio, v.Pass = 0, false
		}
	}
	if b.kind == absolute && v.Ours <= 0 {
		v.Pass = false
	}
	return v
}

// Exit statuses.
const (
	exitPass  = 0
	exitMiss  = 1
	exitError = 2
)

// skip is a verdict that this machine can't give.
func skip(work, metric, bar, why string) verdict {
	return verdict{Work: work, Metric: metric, Bar: bar, Skipped: why}
}

// exitStatus is 1 when a verdict misses, or when nothing was judged. What was skipped is neither.
func exitStatus(verdicts []verdict) int {
	judged := false
	for _, v := range verdicts {
		if v.Skipped != "" {
			continue
		}
		if !v.Pass {
			return exitMiss
		}
		judged = judged || v.Judged
	}
	if !judged {
		return exitMiss
	}
	return exitPass
}

func (v verdict) result() string {
	switch {
	case v.Skipped != "":
		return "NOT MEASURED: " + v.Skipped
	case !v.Judged:
		return ""
	case v.Pass:
		return "pass"
	}
	return "MISS"
}

func printTable(w io.Writer, verdicts []verdict) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "work\tmetric\tfloor\tours\tratio\tbar\t")
	for _, v := range verdicts {
		if v.Skipped != "" {
			fmt.Fprintf(t, "%s\t%s\t\t\t\t%s\t%s\n", v.Work, v.Metric, v.Bar, v.result())
			continue
		}
		if v.Floor == 0 && v.Ratio == 0 { // measured alone
			fmt.Fprintf(t, "%s\t%s\t\t%s\t\t%s\t%s\n", v.Work, v.Metric, v.format(v.Ours), v.Bar, v.result())
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.2f\t%s\t%s\n",
			v.Work, v.Metric, v.format(v.Floor), v.format(v.Ours), v.Ratio, v.Bar, v.result())
	}
	return t.Flush()
}

func formatRate(f float64) string { return fmt.Sprintf("%.0f/s", f) }

func formatDuration(f float64) string {
	return fmt.Sprintf("%.1f µs", f/float64(time.Microsecond))
}

func formatBytes(f float64) string { return fmt.Sprintf("%.1f KB", f/1000) }
