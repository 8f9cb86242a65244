package replica

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/superfly/ltx"

	"github.com/persqld/persqld/internal/bucket"
)

// kept are the files that a replica has of one database, in the order of their last transactions.
type kept []file

// whole tells whether a file has all of a database, and so needs nothing before it.
func (f file) whole() bool { return f.first == 1 }

// listAll lists a database's files of all levels at once.
func listAll(ctx context.Context, b bucket.Bucket, prefix string) (list kept, err error) {
	levels := map[string]int{}
	for level := range levelSnapshot + 1 {
		levels[b.LevelDir(level)] = level
	}
	prefix += "/"
	err = b.List(ctx, prefix, func(o bucket.Object) error {
		rest := strings.TrimPrefix(o.Key, prefix)
		i := strings.LastIndexByte(rest, '/')
		if i < 0 {
			return nil
		}
		level, ok := levels[rest[:i]]
		if !ok {
			return nil
		}
		first, last, err := ltx.ParseFilename(rest[i+1:])
		if err == nil && first > 0 && first <= last { // else it is somebody else's
			list = append(list, file{o.Key, level, first, last, o.Size, o.Modified})
		}
		return nil
	})
	list.sort()
	return list, err
}

func (l kept) sort() {
	slices.SortFunc(l, func(a, b file) int {
		return cmp.Or(cmp.Compare(a.last, b.last), cmp.Compare(a.level, b.level), cmp.Compare(a.first, b.first))
	})
}

// without are the files but for some.
func (l kept) without(bad map[string]error) kept {
	if len(bad) == 0 {
		return l
	}
	return slices.DeleteFunc(slices.Clone(l), func(f file) bool { return bad[f.key] != nil })
}

// end is the last transaction that there is any file of; 0 if there is none.
func (l kept) end() ltx.TXID {
	if len(l) == 0 {
		return 0
	}
	return l[len(l)-1].last
}

// with are the files whose last transaction is one.
func (l kept) with(last ltx.TXID) kept {
	from := sort.Search(len(l), func(i int) bool { return l[i].last >= last })
	to := sort.Search(len(l), func(i int) bool { return l[i].last > last })
	return l[from:to]
}

// moments are the transactions that a database can be restored at, in order. A file's end is one if there is one from its beginning on: its pages are the last
// images of all that changed, so they may be applied to any state in between.
func (l kept) moments() (list []ltx.TXID) {
	for i := 0; i < len(l); {
		last, reached := l[i].last, false
		var before ltx.TXID // the greatest moment before this one
		if len(list) > 0 {
			before = list[len(list)-1]
		}
		for ; i < len(l) && l[i].last == last; i++ {
			reached = reached || l[i].whole() || before > 0 && l[i].first <= before+1
		}
		if reached {
			list = append(list, last)
		}
	}
	return list
}

// beginning is the newest whole copy at or before a transaction.
func (l kept) beginning(at ltx.TXID) (f file, ok bool) {
	for _, c := range l {
		if c.last > at {
			break
		}
		if c.whole() && (!ok || c.last > f.last || c.size < f.size) {
			f, ok = c, true
		}
	}
	return f, ok
}

// path are the files that lead from one state to a later one, or as far there as any do: at each point the one that reaches farthest without passing it. What
// can be applied to a state can be applied to a later one, up to its own end, so that reaching far never misses a way.
func (l kept) path(from, to ltx.TXID) (list []file) {
	fit := make([]file, 0, 16)
	for _, f := range l {
		if f.last > from && f.last <= to && !f.whole() {
			fit = append(fit, f)
		}
	}
	slices.SortStableFunc(fit, func(a, b file) int { return cmp.Compare(a.first, b.first) })
	for i := 0; from < to; {
		var best file
		// One that was passed over for a farther one ends before that does.
		for ; i < len(fit) && fit[i].first <= from+1; i++ {
			if f := fit[i]; f.last > best.last || f.last == best.last && f.size < best.size {
				best = f
			}
		}
		if best.last <= from {
			break
		}
		list = append(list, best)
		from = best.last
	}
	return list
}
