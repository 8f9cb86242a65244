package history

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The names of files: positions as 16 hexadecimal digits, so that they sort as they are.
const (
	chapterSuffix = ".log"   // records of logs, by the position of the first transaction
	mergedSuffix  = ".pages" // what chapters were merged into, by the first and the last position, with a - between
	baseSuffix    = ".base"  // a whole file, by the position whose state it is
	pendingSuffix = ".pending"
	tmpSuffix     = ".tmp" // being written: nothing, after a crash
)

func nameOf(position uint64, suffix string) string { return fmt.Sprintf("%016x%s", position, suffix) }

// stretch is the positions from first to last.
type stretch struct{ first, last uint64 }

func (s stretch) holds(position uint64) bool { return s.first <= position && position <= s.last }

func (s stretch) String() string { return fmt.Sprintf("%016x-%016x", s.first, s.last) }

// shelf is what a database's directory holds, in order.
type shelf struct {
	dir      string
	chapters []uint64
	merged   []stretch
	bases    []uint64
	pending  []uint64
	rest     []string // what is none of these
}

func (h *History) shelf(id string) (*shelf, error) {
	dir, err := h.dir(id)
	if err != nil {
		return nil, err
	}
	s := &shelf{dir: dir}
	entries, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		s.place(e.Name())
	}
	return s, nil
}

func (s *shelf) place(name string) {
	for _, kind := range []struct {
		suffix string
		list   *[]uint64
	}{{chapterSuffix, &s.chapters}, {baseSuffix, &s.bases}, {pendingSuffix, &s.pending}} {
		if digits, ok := strings.CutSuffix(name, kind.suffix); ok {
			if n, ok := parsePosition(digits); ok {
				*kind.list = append(*kind.list, n)
				return
			}
		}
	}
	if digits, ok := strings.CutSuffix(name, mergedSuffix); ok {
		first, last, _ := strings.Cut(digits, "-")
		a, aok := parsePosition(first)
		b, bok := parsePosition(last)
		if aok && bok && a > 0 && a <= b {
			s.merged = append(s.merged, stretch{a, b})
			return
		}
	}
	s.rest = append(s.rest, name)
}

// parsePosition takes the one spelling that nameOf writes.
func parsePosition(digits string) (uint64, bool) {
	if len(digits) != 16 || strings.Trim(digits, "0123456789abcdef") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return n, err == nil
}

func (s *shelf) path(position uint64, suffix string) string {
	return filepath.Join(s.dir, nameOf(position, suffix))
}

func (s *shelf) mergedPath(m stretch) string {
	return filepath.Join(s.dir, m.String()+mergedSuffix)
}

// files are the paths of all that there is.
func (s *shelf) files() []string {
	var list []string
	for _, kind := range []struct {
		suffix string
		list   []uint64
	}{{chapterSuffix, s.chapters}, {baseSuffix, s.bases}, {pendingSuffix, s.pending}} {
		for _, at := range kind.list {
			list = append(list, s.path(at, kind.suffix))
		}
	}
	for _, m := range s.merged {
		list = append(list, s.mergedPath(m))
	}
	for _, name := range s.rest {
		list = append(list, filepath.Join(s.dir, name))
	}
	return list
}

// fromEmpty tells whether the history begins with the empty database.
func (s *shelf) fromEmpty() bool {
	if len(s.bases) > 0 && s.bases[0] == 0 {
		return false
	}
	if len(s.chapters) == 0 && len(s.merged) == 0 {
		return len(s.bases) == 0
	}
	return len(s.chapters) > 0 && s.chapters[0] == 1 || len(s.merged) > 0 && s.merged[0].first == 1
}

// covered tells whether merged files have all of these positions.
func (s *shelf) covered(p stretch) bool {
	for next := p.first; ; {
		i := slices.IndexFunc(s.merged, func(m stretch) bool { return m.holds(next) })
		if i < 0 {
			return false
		}
		if s.merged[i].last >= p.last {
			return true
		}
		next = s.merged[i].last + 1
	}
}
