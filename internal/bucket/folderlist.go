package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// errEnough ends a walk.
var errEnough = errors.New("enough")

// List walks the folder in the order of whole keys, which is that of names where a directory's has its / behind it.
func (f *folder) List(ctx context.Context, prefix string, fn func(Object) error) error {
	began := f.Now()
	dir, rest, err := checkPrefix(prefix)
	var own error // of fn
	if err == nil {
		err = f.walk(ctx, dir, rest, func(o Object) error {
			own = fn(o)
			return own
		})
	}
	if own != nil {
		f.Observer.Tried(OpList, OK, f.Now().Sub(began).Seconds(), 0)
		return own
	}
	return f.observed(OpList, prefix, began, 0, err)
}

// Groups are the directories that have an object. One that a crash left behind without any is none.
func (f *folder) Groups(ctx context.Context, prefix string) ([]string, error) {
	began := f.Now()
	groups, err := f.groups(ctx, prefix)
	return groups, f.observed(OpList, prefix, began, 0, err)
}

func (f *folder) groups(ctx context.Context, prefix string) (groups []string, err error) {
	if err := checkGroup(prefix); err != nil {
		return nil, err
	}
	entries, err := f.entries(prefix)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		err := f.walk(ctx, prefix+e.Name()+"/", "", func(Object) error { return errEnough })
		if errors.Is(err, errEnough) {
			groups = append(groups, e.Name())
		} else if err != nil {
			return nil, err
		}
	}
	slices.Sort(groups)
	return groups, nil
}

// walk calls fn with the objects in a directory, which is empty or ends in a /, whose names begin with rest.
func (f *folder) walk(ctx context.Context, dir, rest string, fn func(Object) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := f.entries(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), rest) {
			continue
		}
		if e.IsDir() {
			err = f.walk(ctx, dir+e.Name()+"/", "", fn)
		} else {
			err = f.visit(dir+e.Name(), e, fn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *folder) visit(key string, e fs.DirEntry, fn func(Object) error) error {
	fi, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was deleted meanwhile
	} else if err != nil {
		return err
	}
	return fn(Object{Key: key, Size: fi.Size(), Modified: fi.ModTime()})
}

// entries are the files and directories of a directory that are keys' or lead to keys, in the order of keys. A directory that isn't there has none; the
// folder itself must be there. Temporary files that a crash left behind are taken away.
func (f *folder) entries(dir string) ([]fs.DirEntry, error) {
	root, err := os.OpenRoot(f.root)
	if err != nil {
		return nil, fmt.Errorf("open the folder: %w", unlike(err))
	}
	defer root.Close()
	d, err := root.Open(cmp.Or(filepath.FromSlash(strings.TrimSuffix(dir, "/")), "."))
	if err != nil {
		if dir != "" && errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	defer d.Close()
	if fi, err := d.Stat(); err != nil || !fi.IsDir() {
		return nil, err
	}
	all, err := d.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	kept := all[:0]
	for _, e := range all {
		switch {
		case strings.Contains(e.Name(), tempMark):
			f.tidy(filepath.Join(f.root, filepath.FromSlash(dir), e.Name()), e)
		case checkPart(e.Name()) == nil && (e.IsDir() || e.Type().IsRegular()):
			kept = append(kept, e)
		}
	}
	slices.SortFunc(kept, func(a, b fs.DirEntry) int { return cmp.Compare(sortName(a), sortName(b)) })
	return kept, nil
}

func sortName(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}

// tidy takes away a temporary file that nobody writes any more. That it can't be is no failure of a listing.
func (f *folder) tidy(path string, e fs.DirEntry) {
	name, id, _ := strings.Cut(e.Name(), tempMark)
	began, err := strconv.ParseInt(id[strings.LastIndexByte(id, '-')+1:], 10, 64)
	if checkPart(name) != nil || strings.HasPrefix(id, f.own) || !e.Type().IsRegular() || err != nil {
		return
	}
	if f.Now().Sub(time.Unix(began, 0)) > tempAge {
		_ = f.Files.Remove(path)
	}
}
