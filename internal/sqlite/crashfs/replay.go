package crashfs

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// Crash is one simulated power loss.
type Crash struct {
	// Point is the log's position at which the power failed: operations before
	// it had been called. 0 … Log.Len().
	Point int
	// Seed decides what became of the operations that no sync covered. Replay
	// with the same point and seed lays out the same directory again.
	Seed uint64
	// Dir is the directory after the power loss.
	Dir string
	// Acked are the marks before Point, in order.
	Acked []any
}

// CrashError is what a check found wrong after one crash of Log.Crashes.
type CrashError struct {
	Crash Crash
	Err   error
}

func (e *CrashError) Error() string {
	return fmt.Sprintf("power loss at point %d with seed %d (%d acknowledged): %v",
		e.Crash.Point, e.Crash.Seed, len(e.Crash.Acked), e.Err)
}

// Unwrap returns the check's error.
func (e *CrashError) Unwrap() error { return e.Err }

// Replay lays out in destDir, which must be empty or not exist, the disk as it
// may be after a power loss at position crashPoint of the log, and returns the
// marks before it. Files get the mode 0600, directories 0700.
func Replay(l *Log, crashPoint int, seed uint64, destDir string) (acked []any, err error) {
	if crashPoint < 0 || crashPoint > l.Len() {
		return nil, fmt.Errorf("replay log: crash point %d is not in 0 … %d", crashPoint, l.Len())
	}
	d := newDisk(l)
	d.advance(crashPoint)
	return d.acked, d.lay(seed, destDir)
}

// Crashes simulates n power losses at positions spread over the whole log, the
// last one at its end, and calls check for each with a directory made inside
// tmp, which is removed afterwards. It stops at the first error: check's come as
// *CrashError. The same seed gives the same crashes.
func (l *Log) Crashes(n int, seed uint64, tmp string, check func(Crash) error) error {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	d := newDisk(l)
	for i := range n {
		c := Crash{Point: l.spread(i, n, rng), Seed: rng.Uint64()}
		d.advance(c.Point)
		dir, err := os.MkdirTemp(tmp, "crash")
		if err != nil {
			return fmt.Errorf("make replay directory: %w", err)
		}
		c.Dir, c.Acked = dir, slices.Clip(d.acked)
		if err := d.lay(c.Seed, dir); err != nil {
			return err
		}
		if err := check(c); err != nil {
			return &CrashError{Crash: c, Err: err}
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove replay directory: %w", err)
		}
	}
	return nil
}

// spread picks the i-th of n crash points: one at random from each n-th part of
// the log, so that they rise and leave no part out.
func (l *Log) spread(i, n int, rng *rand.Rand) int {
	if i == n-1 {
		return l.Len()
	}
	low, high := i*l.Len()/n, (i+1)*l.Len()/n
	return low + rng.IntN(high-low+1)
}

// lay writes the disk's directories and files, undecided changes decided by the
// seed. It leaves the disk as it was, for the next crash.
func (d *disk) lay(seed uint64, dest string) error {
	dirs := d.decideEntries(rand.New(rand.NewPCG(seed, 0)))
	return d.layDir(dirs, rootIno, seed, dest)
}

func (d *disk) layDir(dirs map[int]map[string]int, dir int, seed uint64, dest string) error {
	if err := os.MkdirAll(dest, 0o700); err != nil {
		return fmt.Errorf("lay out directory: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(dirs[dir])) {
		child, path := dirs[dir][name], filepath.Join(dest, name)
		if d.log.isDir[child] {
			if err := d.layDir(dirs, child, seed, path); err != nil {
				return err
			}
			continue
		}
		// A generator a file, so that one file's fate doesn't hang on which
		// other names survived.
		data := d.decideFile(d.file(child), rand.New(rand.NewPCG(seed, uint64(child))))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return fmt.Errorf("lay out file: %w", err)
		}
	}
	return nil
}

// decideEntries returns the names on the disk after the crash.
func (d *disk) decideEntries(rng *rand.Rand) map[int]map[string]int {
	if len(d.entries) == 0 {
		return d.dirs
	}
	dirs := make(map[int]map[string]int, len(d.dirs))
	for dir, entries := range d.dirs {
		dirs[dir] = maps.Clone(entries)
	}
	if rng.IntN(4) == 0 {
		// A journal of metadata: whatever reached the disk took all older
		// changes, of any directory, along.
		cut := d.newest + 1 + rng.IntN(d.pos-d.newest)
		for _, c := range d.entries {
			if c.at < cut {
				for _, s := range c.sets {
					setEntry(dirs, s)
				}
			}
		}
		return dirs
	}
	keep := probability(rng)
	for _, c := range d.entries {
		if rng.Float64() >= keep {
			continue
		}
		for i, s := range c.sets {
			// Across directories a rename may be cut in the middle: both names.
			if i > 0 && c.sets[0].dir != s.dir && rng.IntN(2) == 0 {
				break
			}
			setEntry(dirs, s)
		}
	}
	return dirs
}

// decideFile returns a file's content after the crash. It must not change
// f.data, which later crashes start from.
func (d *disk) decideFile(f *diskFile, rng *rand.Rand) []byte {
	if len(f.pending) == 0 {
		return f.data
	}
	data := bytes.Clone(f.data)
	keep := probability(rng)
	for i, at := range f.pending {
		o := &d.log.ops[at]
		kept := rng.Float64() < keep
		// The write that the power loss met is the likeliest to be torn.
		torn := rng.IntN(8) == 0 || i == len(f.pending)-1 && rng.IntN(2) == 0
		switch {
		case o.kind == opWrite && torn:
			data = tear(data, o.off, o.data, rng)
		case kept:
			data = apply(data, o)
		case o.kind == opWrite && rng.IntN(4) == 0:
			// The new size without the content.
			if end := o.off + int64(len(o.data)); end > int64(len(data)) {
				data = resize(data, end)
			}
		}
	}
	return data
}

// probability is how likely this disk had written something back by itself:
// nothing and everything are as interesting as halves.
func probability(rng *rand.Rand) float64 {
	return [...]float64{0, 0.2, 0.5, 0.8, 1}[rng.IntN(5)]
}
