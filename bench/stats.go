package main

import (
	"math"
	"slices"
	"time"
)

// percentile returns the q-quantile (0…1) of ascending values by the nearest
// rank, or 0 of none.
func percentile[T any](ascending []T, q float64) T {
	if len(ascending) == 0 {
		var zero T
		return zero
	}
	rank := int(math.Ceil(q * float64(len(ascending))))
	return ascending[min(max(rank, 1), len(ascending))-1]
}

// median returns the middle value, or the mean of the middle two, or NaN of
// none. It leaves values as they are.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	upper := sorted[len(sorted)/2]
	if len(sorted)%2 == 1 {
		return upper
	}
	return (sorted[len(sorted)/2-1] + upper) / 2
}

// summarize makes a sample of what every connection counted.
func summarize(times [][]time.Duration, window, cpu time.Duration) sample {
	all := slices.Concat(times...)
	slices.Sort(all)
	s := sample{
		Requests: int64(len(all)),
		Window:   window,
		Rate:     float64(len(all)) / window.Seconds(),
		P50:      percentile(all, 0.50),
		P99:      percentile(all, 0.99),
	}
	if len(all) > 0 {
		s.CPU = cpu / time.Duration(len(all))
	}
	return s
}
