package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNewer is returned by Open for a directory that a newer version of the program wrote. The error's text names its
// format and the one that this version knows.
var ErrNewer = errors.New("data directory is of a newer version")

// step leads a directory from one format to the next. It is run again from its beginning after a crash, so it must find
// its own work half done, or done, and finish it.
type step func(Layout) error

// formatSteps are the steps from format 1 on: the first leads to format 2. There is one format so far.
func formatSteps() []step { return nil }

// Format is the file that holds the format's number. A directory without it has format 1: it was made before there was
// such a file.
func (l Layout) Format() string { return filepath.Join(string(l), "format") }

// ReadFormat returns the format of a directory, and the newest that this version knows. It changes nothing.
func (l Layout) ReadFormat() (have, known int, err error) {
	have, err = readFormat(l)
	return max(have, 1), 1 + len(formatSteps()), err
}

// readFormat returns 0 where there is no file.
func readFormat(l Layout) (int, error) {
	text, err := os.ReadFile(l.Format())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read format of data directory: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("read format of data directory: %s holds %.40q, no format's number", l.Format(), text)
	}
	return n, nil
}

// upgrade takes the directory to the newest format, step by step: after each one its number is made durable. Of a newer
// directory it changes nothing.
func upgrade(l Layout, steps []step) error {
	newest := 1 + len(steps)
	have, err := readFormat(l)
	if err != nil {
		return err
	}
	if have > newest {
		return fmt.Errorf("%w: %s has format %d, this version of persqld knows format %d", ErrNewer, l.Root(), have, newest)
	}
	if have == 0 {
		if _, err := os.Lstat(l.Catalog()); errors.Is(err, fs.ErrNotExist) {
			return writeFormat(l, newest) // there is nothing in it
		}
		have = 1
		err := writeFormat(l, have)
		if err != nil && !isFull(err) { // without it the directory still has format 1, and a server starts on a full disk
			return err
		}
	}
	for ; have < newest; have++ {
		if err := steps[have-1](l); err != nil {
			return fmt.Errorf("take data directory from format %d to %d: %w", have, have+1, err)
		}
		if err := writeFormat(l, have+1); err != nil {
			return err
		}
	}
	return nil
}

// writeFormat puts the number there whole, or leaves what was there.
func writeFormat(l Layout, n int) (err error) {
	scratch := l.Format() + ".new"
	defer func() {
		if err != nil {
			err = fmt.Errorf("write format of data directory: %w", err)
		}
	}()
	f, err := os.OpenFile(scratch, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(strconv.Itoa(n) + "\n"); err != nil {
		return errors.Join(err, f.Close(), os.Remove(scratch))
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(scratch, l.Format()); err != nil {
		return err
	}
	return syncDir(l.Root())
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
