package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Problem is something that is wrong with a database's history.
type Problem struct {
	File        string // its name; empty if one is missing
	What        string
	First, Last uint64 // positions that can't be restored because of it; 0 and 0 if there are none
	// Before and After are when the nearest moments were committed that can be restored, in Unix ms; 0 for none, or none that is known.
	Before, After int64
	// Foreign is a file that is none of the history's.
	Foreign bool
}

func (p Problem) String() string {
	text := p.What
	if p.File != "" {
		text = p.File + " " + text
	}
	if p.Last == 0 {
		return text
	}
	text += fmt.Sprintf(": positions %x to %x can't be restored", p.First, p.Last)
	when := func(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
	if p.Before > 0 {
		text += ", after " + when(p.Before)
	}
	if p.After > 0 {
		text += ", before " + when(p.After)
	}
	return text
}

// Condition is what Verify finds out about a history.
type Condition struct {
	Problems []Problem
	// Unfinished is what a crash left that is no fault: the next start, or the next look at what is old, takes care of it.
	Unfinished []string
}

// Verify looks at all of a database's history, which nobody may write to meanwhile; log is the log of its database, nil without one. With full it reads
// every byte: every checksum, and that each transaction follows the one before. Else it reads what files say of themselves (the headers of records, trailers,
// lists of moments) and the last record, and whether they follow each other. It holds no image, and of one file at a time its list of records. An error is
// what kept it from looking further.
func (h *History) Verify(ctx context.Context, id string, log *os.File, full bool) (c Condition, err error) {
	s, err := h.shelf(id)
	if err != nil {
		return c, err
	}
	v := &verifier{h: h, ctx: ctx, s: s, full: full}
	for _, step := range []func() error{func() error { return v.end(log) }, v.files, v.holes} {
		if err := step(); err != nil {
			return v.Condition, err
		}
	}
	v.leftovers()
	seen := map[Problem]bool{} // the end of a history is looked at twice
	v.Problems = slices.DeleteFunc(v.Problems, func(p Problem) bool {
		was := seen[p]
		seen[p] = true
		return was
	})
	return v.Condition, nil
}

type verifier struct {
	h    *History
	ctx  context.Context
	s    *shelf
	full bool
	head Head
	// whole says that the log has what the end of the last chapter lost.
	whole bool
	runs  []stretch // positions that readable files have
	Condition
}

// add notes damage, and lets other errors through.
func (v *verifier) add(err error) error {
	var damage *DamageError
	if errors.As(err, &damage) {
		v.Problems = append(v.Problems, Problem{File: filepath.Base(damage.Path), What: damage.What})
		return nil
	}
	return err
}

// end looks where the history ends: a record that a crash tore is no fault if the log has what it was made of.
func (v *verifier) end(log *os.File) error {
	id := filepath.Base(v.s.dir)
	head, err := v.h.head(id, v.s)
	if damaged(err) {
		head, err = v.s.named(), v.add(err)
	}
	v.head = head
	if err != nil {
		return err
	}
	if head.Torn == 0 {
		return nil
	}
	pending := 0
	if log != nil {
		if pending, _, err = v.h.Pending(log, head); err != nil {
			return err
		}
	}
	if head.Position+uint64(pending) >= head.Torn {
		v.whole = true
		v.Unfinished = append(v.Unfinished, "the last record was half written; the log has all of it")
		return nil
	}
	v.Problems = append(v.Problems, Problem{What: "the end of the history is damaged, and the log doesn't have it", First: head.Position + 1, Last: head.Torn, Before: head.Time})
	return nil
}

// named is how far the history goes by the names of its files alone.
func (s *shelf) named() (head Head) {
	for _, list := range [][]uint64{s.bases, s.chapters} {
		if n := len(list); n > 0 {
			head = Head{Known: true, Position: max(head.Position, list[n-1])}
		}
	}
	if n := len(s.merged); n > 0 {
		head = Head{Known: true, Position: max(head.Position, s.merged[n-1].last)}
	}
	return head
}

// files looks at each file by itself.
func (v *verifier) files() error {
	for _, at := range v.s.bases {
		path := v.s.path(at, baseSuffix)
		t, err := readTrailer(path)
		switch {
		case err == nil && v.full:
			_, err = checkBase(v.ctx, path, at)
		case err == nil && t.at != at:
			err = &DamageError{path, "is a base of another position"}
		}
		if err := v.add(missing(path, err)); err != nil {
			return err
		}
	}
	for _, m := range v.s.merged {
		path := v.s.mergedPath(m)
		of, err := readMerged(path)
		if err == nil {
			v.runs = append(v.runs, of.stretch)
			if v.full {
				err = checkMerged(path)
			}
		}
		if err := v.add(missing(path, err)); err != nil {
			return err
		}
		if err := v.ctx.Err(); err != nil {
			return err
		}
	}
	for i, first := range v.s.chapters {
		if err := v.add(v.chapter(first, i == len(v.s.chapters)-1)); err != nil {
			return err
		}
	}
	return nil
}

// missing makes damage of a file that went while it was looked at.
func missing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &DamageError{path, "is gone"}
	}
	return err
}

// chapter looks at the records of a chapter. The last chapter may be torn at its end.
func (v *verifier) chapter(first uint64, last bool) error {
	path := v.s.path(first, chapterSuffix)
	list, end, size, err := records(path)
	if err != nil {
		return readError(path, err)
	}
	if last && v.whole { // end told of that
		list = slices.DeleteFunc(list, func(r *record) bool { return r.last() > v.head.Position })
	}
	var damage error
	switch {
	case len(list) > 0 && list[0].first != first:
		damage = &DamageError{path, "has other positions than its name says"}
	case end < size && !last:
		damage = &DamageError{path, fmt.Sprintf("is torn at %d of %d bytes", end, size)}
	case end < size:
		v.Unfinished = append(v.Unfinished, "the end of "+filepath.Base(path)+" was half written")
	}
	for _, r := range list {
		if n := len(v.runs); n > 0 && v.runs[n-1].last+1 == r.first {
			v.runs[n-1].last = r.last()
		} else {
			v.runs = append(v.runs, stretch{r.first, r.last()})
		}
	}
	if damage != nil || !v.full {
		return damage
	}
	f, err := os.Open(path)
	if err != nil {
		return readError(path, err)
	}
	defer f.Close()
	for _, r := range list {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if err := r.verify(f, path); err != nil {
			return err
		}
	}
	return nil
}

// starts are the states that a restore can begin with.
func (v *verifier) starts() (starts []uint64, err error) {
	if v.s.fromEmpty() {
		starts = append(starts, 0)
	}
	for _, at := range v.s.bases {
		_, err := readTrailer(v.s.path(at, baseSuffix))
		if err == nil && v.full {
			_, err = checkBase(v.ctx, v.s.path(at, baseSuffix), at)
		}
		if err == nil {
			starts = append(starts, at)
		} else if !damaged(err) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return starts, nil
}

// holes are the positions that no chain of transactions leads to, from the empty database or a base on.
func (v *verifier) holes() error {
	starts, err := v.starts()
	if err != nil {
		return err
	}
	if len(starts) == 0 && v.head.Known {
		v.Problems = append(v.Problems, Problem{What: "there is no base to begin with", First: 1, Last: v.head.Position})
		return nil
	}
	for i := 0; i < len(starts); {
		reached, err := v.reach(starts[i])
		if err == nil || reached >= v.head.Position {
			return nil
		}
		if !damaged(err) && err != ErrMerged {
			return err
		}
		for i++; i < len(starts) && starts[i] <= reached; i++ {
		}
		p := Problem{What: err.Error(), First: reached + 1, Last: v.head.Position}
		if reached > 0 {
			p.Before = v.s.timeOf(reached)
		}
		if i < len(starts) {
			p.Last = starts[i] - 1
			if t, err := readTrailer(v.s.path(starts[i], baseSuffix)); err == nil {
				p.After = t.time
			}
		}
		if p.Last > reached {
			v.Problems = append(v.Problems, p)
		}
	}
	return nil
}

// reach is how far transactions follow each other from a state on; the error says what ends them before the history's end.
func (v *verifier) reach(from uint64) (uint64, error) {
	if v.full {
		w := newWalker(v.s, moment{position: from})
		w.blind = true
		err := w.to(v.ctx, v.head.Position)
		return w.from.position, err
	}
	for from < v.head.Position {
		i := slices.IndexFunc(v.runs, func(r stretch) bool { return r.holds(from + 1) })
		if i < 0 {
			return from, &DamageError{v.s.dir, fmt.Sprintf("has no record of position %d", from+1)}
		}
		from = v.runs[i].last
	}
	return from, v.ctx.Err()
}

// leftovers are files that are nothing, or not yet.
func (v *verifier) leftovers() {
	for _, name := range v.s.rest {
		if filepath.Ext(name) == tmpSuffix {
			v.Unfinished = append(v.Unfinished, name+" was being written")
		} else {
			v.Problems = append(v.Problems, Problem{File: name, What: "is no file of the history", Foreign: true})
		}
	}
	for _, at := range v.s.pending {
		v.Unfinished = append(v.Unfinished, nameOf(at, pendingSuffix)+" was about to take the database's place; the next write to the database decides")
	}
}
