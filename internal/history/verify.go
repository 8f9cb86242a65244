package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Problem is something that is wrong with a database's history.
type Problem struct {
	File        string // its name; empty if one is missing
	What        string
	First, Last uint64 // positions that can't be restored because of it; 0 and 0 if there are none
}

func (p Problem) String() string {
	text := p.What
	if p.File != "" {
		text = p.File + " " + text
	}
	if p.Last > 0 {
		text += fmt.Sprintf(": positions %x to %x can't be restored", p.First, p.Last)
	}
	return text
}

// Verify reads all of a database's history: every checksum, and that each transaction follows the one before, from the first moment on. What a crash may
// leave is no problem. An error is what kept it from looking further. Nobody may write to the history meanwhile.
func (h *History) Verify(ctx context.Context, id string) (problems []Problem, err error) {
	s, err := h.shelf(id)
	if err != nil {
		return nil, err
	}
	for _, name := range s.rest {
		if filepath.Ext(name) != tmpSuffix {
			problems = append(problems, Problem{File: name, What: "is no file of the history"})
		}
	}
	add := func(err error) error {
		var damage *DamageError
		if errors.As(err, &damage) {
			problems = append(problems, Problem{File: filepath.Base(damage.Path), What: damage.What})
			return nil
		}
		return err
	}
	for _, at := range s.bases {
		_, err := checkBase(ctx, s.path(at, baseSuffix), at)
		if err = add(err); err != nil {
			return problems, err
		}
	}
	for _, m := range s.merged {
		if err := add(checkMerged(s.mergedPath(m))); err != nil {
			return problems, err
		}
		if err := ctx.Err(); err != nil {
			return problems, err
		}
	}
	for i, first := range s.chapters {
		path := s.path(first, chapterSuffix)
		err := checkChapter(ctx, path, i == len(s.chapters)-1)
		if err = add(err); err != nil {
			return problems, err
		}
	}
	holes, err := h.holes(ctx, id, s)
	return append(problems, holes...), err
}

// checkChapter verifies all records of a chapter. The last chapter may be torn at its end.
func checkChapter(ctx context.Context, path string, last bool) error {
	list, end, size, err := records(path)
	if err != nil {
		return readError(path, err)
	}
	if end < size && !last {
		return &DamageError{path, fmt.Sprintf("is torn at %d of %d bytes", end, size)}
	}
	f, err := os.Open(path)
	if err != nil {
		return readError(path, err)
	}
	defer f.Close()
	for _, r := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.verify(f, path); err != nil {
			return err
		}
	}
	return nil
}

// holes are the positions that no chain of transactions leads to, from the empty database or a base on.
func (h *History) holes(ctx context.Context, id string, s *shelf) (problems []Problem, err error) {
	head, err := h.head(id, s)
	if err != nil {
		return nil, err
	}
	var starts []uint64
	if s.fromEmpty() {
		starts = append(starts, 0)
	}
	for _, at := range s.bases {
		if _, err := readTrailer(s.path(at, baseSuffix)); err == nil {
			starts = append(starts, at)
		} else if !damaged(err) {
			return nil, err
		}
	}
	if len(starts) == 0 && head.Known {
		return []Problem{{What: "there is no base to begin with", Last: head.Position}}, nil
	}
	for i := 0; i < len(starts); {
		w := newWalker(s, moment{position: starts[i]})
		err := w.to(ctx, head.Position)
		if err == nil || w.from.position >= head.Position {
			return problems, nil
		}
		if !damaged(err) && err != ErrMerged {
			return problems, err
		}
		for i++; i < len(starts) && starts[i] <= w.from.position; i++ {
		}
		last := head.Position
		if i < len(starts) {
			last = starts[i] - 1
		}
		if last > w.from.position {
			problems = append(problems, Problem{What: err.Error(), First: w.from.position + 1, Last: last})
		}
	}
	return problems, nil
}
