package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/superfly/ltx"
)

// reachable is every state that any order of files leads to, found by trying all.
func reachable(l kept, limit ltx.TXID) map[ltx.TXID]bool {
	states := map[ltx.TXID]bool{}
	for again := true; again; {
		again = false
		for _, f := range l {
			if f.last > limit || states[f.last] {
				continue
			}
			ok := f.first == 1
			for s := range states {
				ok = ok || f.first <= s+1 && s < f.last
			}
			if ok {
				states[f.last], again = true, true
			}
		}
	}
	return states
}

// The plan finds a way where there is one, says so where there is none, and the moments are all that there are.
func TestPlanAgainstBruteForce(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 5))
		var l kept
		for i := range 1 + r.IntN(14) {
			first := ltx.TXID(1 + r.IntN(20))
			last := first + ltx.TXID(r.IntN(6))
			level := r.IntN(3)
			if r.IntN(5) == 0 {
				first, level = 1, levelSnapshot
			}
			l = append(l, file{key: fmt.Sprint(i), level: level, first: first, last: last, size: int64(1 + r.IntN(9))})
		}
		l.sort()
		all := reachable(l, 1<<60)
		var want []ltx.TXID
		for s := range all {
			want = append(want, s)
		}
		slices.Sort(want)
		if got := l.moments(); !slices.Equal(got, want) {
			t.Fatalf("seed %d: moments %v, want %v of %v", seed, got, want, l)
		}
		for target := ltx.TXID(1); target <= l.end(); target++ {
			state, applied := ltx.TXID(0), 0
			if f, ok := l.beginning(target); ok {
				state = f.last
				for _, f := range l.path(state, target) {
					if f.first > state+1 || f.last <= state || f.last > target {
						t.Fatalf("seed %d: %v is applied to %s on the way to %s", seed, f, state, target)
					}
					state = f.last
					applied++
				}
			}
			if (state == target) != all[target] {
				t.Fatalf("seed %d: the way to %s ends at %s; it is there: %v; %v", seed, target, state, all[target], l)
			}
			if applied > len(l) {
				t.Fatalf("seed %d: %d files", seed, applied)
			}
		}
	}
}
