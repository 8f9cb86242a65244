package main

import (
	"math"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	tests := []struct {
		name   string
		values []int
		q      float64
		want   int
	}{
		{"none", nil, 0.5, 0},
		{"one", []int{7}, 0.99, 7},
		{"least", hundred, 0, 1},
		{"p50", hundred, 0.5, 50},
		{"p99", hundred, 0.99, 99},
		{"greatest", hundred, 1, 100},
		{"p99 of few", []int{1, 2, 3}, 0.99, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := percentile(tt.values, tt.q); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestMedian(t *testing.T) {
	values := []float64{5, 1, 3}
	if got := median(values); got != 3 {
		t.Errorf("odd: got %v, want 3", got)
	}
	if values[0] != 5 {
		t.Error("median reordered its argument")
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("even: got %v, want 2.5", got)
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("none: got %v, want NaN", got)
	}
}

func TestSummarize(t *testing.T) {
	got := summarize([][]time.Duration{{30, 10}, nil, {20, 40}}, 2*time.Second, 4*time.Second)
	want := sample{Requests: 4, Window: 2 * time.Second, Rate: 2, P50: 20, P99: 40, CPU: time.Second}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := summarize(nil, time.Second, time.Second); got.Requests != 0 || got.CPU != 0 {
		t.Errorf("nothing counted: got %+v", got)
	}
}
