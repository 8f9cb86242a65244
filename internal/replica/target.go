package replica

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/superfly/ltx"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/history"
)

// Target is a moment to restore. The zero value is the latest one.
type Target struct {
	kind targetKind
	n    uint64
}

type targetKind uint8

const (
	atLatest targetKind = iota
	atPosition
	atTime
)

// AtPosition is the moment of a position of the history.
func AtPosition(position uint64) Target { return Target{atPosition, position} }

// AtTime is the last moment that was committed at or before a time in Unix ms.
func AtTime(ms int64) Target { return Target{atTime, uint64(ms)} }

// Latest tells whether a target is the latest moment.
func (t Target) Latest() bool { return t.kind == atLatest }

// Before tells whether a target is a time before another.
func (t Target) Before(other time.Time) bool {
	return t.kind == atTime && int64(t.n) < other.UnixMilli()
}

func (t Target) String() string {
	switch t.kind {
	case atPosition:
		return fmt.Sprintf("position %x", t.n)
	case atTime:
		return when(int64(t.n))
	}
	return "the latest moment"
}

func when(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

// Moment is one that can be restored.
type Moment struct {
	Position uint64
	Time     int64 // Unix ms; 0 if it isn't known
}

// MomentError is a moment that can't be restored, with the nearest ones that the replica seems to have.
type MomentError struct {
	ID            string // the database's; empty for the catalog
	Target        Target
	Before, After *Moment
	Cause         error
}

func (e *MomentError) Error() string {
	var b strings.Builder
	what := e.ID
	if what == "" {
		what = "the catalog"
	}
	fmt.Fprintf(&b, "%s can't be restored at %s", what, e.Target)
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	name := func(m *Moment) string {
		var parts []string
		if m.Time > 0 {
			parts = append(parts, when(m.Time))
		}
		if e.ID != "" {
			parts = append(parts, "bookmark "+history.Bookmark(e.ID, m.Position))
		}
		return strings.Join(parts, ", ")
	}
	switch {
	case e.Before != nil && e.After != nil:
		fmt.Fprintf(&b, "; the nearest moments are %s, and %s", name(e.Before), name(e.After))
	case e.Before != nil:
		fmt.Fprintf(&b, "; the nearest moment before it is %s", name(e.Before))
	case e.After != nil:
		fmt.Fprintf(&b, "; the nearest moment after it is %s", name(e.After))
	default:
		b.WriteString("; there is no moment that can be")
	}
	return b.String()
}

func (e *MomentError) Unwrap() error { return e.Cause }

// chosen is the moment that a target turns out to be: 0 for the empty database before the first transaction.
type chosen struct {
	at ltx.TXID
	ms int64 // of it, if a time was asked for
}

var errPassed = errors.New("no file of the replica ends there: of older transactions it has one moment every 30 seconds")

// choose finds the moment of a target among a database's files, and adds those that turn out to be damaged to bad. The moments around it are the nearest ones.
func choose(ctx context.Context, b bucket.Bucket, all kept, bad map[string]error, t Target) (chosen, error) {
	switch t.kind {
	case atLatest:
		return chosen{at: all.end()}, nil
	case atPosition:
		at := txid(t.n)
		if at > all.end() {
			return chosen{}, errors.New("the replica doesn't have it (yet)")
		}
		if at == txid(0) && len(all.with(at)) == 0 {
			return chosen{}, nil
		}
		if len(all.with(at)) == 0 {
			return chosen{}, errPassed
		}
		return chosen{at: at}, nil
	}
	return chooseTime(ctx, b, all, bad, int64(t.n))
}

// chooseTime finds the last moment at or before a time. Both it and the next one are read whole, for what a damaged header says would make another moment pass
// for it.
func chooseTime(ctx context.Context, b bucket.Bucket, all kept, bad map[string]error, ms int64) (chosen, error) {
	var cause error
	trusted := map[ltx.TXID]bool{}
	for {
		good := all.without(bad)
		moments := good.moments()
		stampOf := func(m ltx.TXID, read func(context.Context, bucket.Bucket, file) (int64, error)) (int64, error) {
			f := good.with(m)[0]
			got, err := read(ctx, b, f)
			if _, ok := asDamage(err); ok {
				bad[f.key] = err
				cause = err
			}
			return got, err
		}
		var err error
		i := sort.Search(len(moments), func(i int) bool {
			if err != nil {
				return true
			}
			var got int64
			got, err = stampOf(moments[i], stamp)
			return got > ms
		})
		var found chosen
		if err == nil && i > 0 {
			found.at = moments[i-1]
			read := checked
			if trusted[found.at] || good.with(found.at)[0].whole() { // that one is what a restore begins with, and reads whole anyway
				read = stamp
			}
			found.ms, err = stampOf(found.at, read)
			trusted[found.at] = err == nil
		}
		if err == nil && i < len(moments) && !trusted[moments[i]] {
			_, err = stampOf(moments[i], checked)
			trusted[moments[i]] = err == nil
		}
		if _, ok := asDamage(err); ok {
			continue
		}
		if err != nil {
			return chosen{}, err
		}
		next := all.end() + 1
		if i < len(moments) {
			next = moments[i]
		}
		for _, f := range all {
			if f.last > found.at && f.last < next {
				if cause == nil {
					cause = fmt.Errorf("what %s goes on from is missing", f.key)
				}
				return chosen{}, cause
			}
		}
		if i == 0 && next > txid(1) {
			return chosen{}, errors.New("the replica begins later")
		}
		return found, nil
	}
}

// nearest makes the error for a target that can't be restored. at is its transaction, 0 if that isn't known.
func nearest(ctx context.Context, b bucket.Bucket, id string, good kept, t Target, at ltx.TXID, cause error) error {
	e := &MomentError{ID: id, Target: t, Cause: cause}
	if t.kind == atPosition {
		at = txid(t.n)
	}
	moments := good.moments()
	var i int // of the first moment that isn't before it
	if at == 0 && t.kind == atTime {
		i = sort.Search(len(moments), func(i int) bool {
			ms, err := stamp(ctx, b, good.with(moments[i])[0])
			return err == nil && ms > int64(t.n)
		})
	} else {
		i = sort.Search(len(moments), func(i int) bool { return moments[i] >= at })
	}
	describe := func(m ltx.TXID) *Moment {
		ms, err := stamp(ctx, b, good.with(m)[0])
		if err != nil {
			ms = 0
		}
		return &Moment{Position: uint64(m) - 1, Time: ms}
	}
	if i > 0 {
		e.Before = describe(moments[i-1])
	}
	if i < len(moments) && moments[i] == at { // it seems to be there, and isn't
		i++
	}
	if i < len(moments) {
		e.After = describe(moments[i])
	}
	return e
}
