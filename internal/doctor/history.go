package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/persqld/persqld/internal/history"
)

// past examines what the databases were: the history of each, against its log and the catalog.
func (x *examination) past(ctx context.Context) error {
	root := x.dir.History()
	shelves, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // from before there was a history
	}
	if err != nil {
		x.unreadable(root, err)
		return nil
	}
	h, err := history.New(history.Options{Root: root})
	if err != nil {
		x.unreadable(root, err)
		return nil
	}
	todo := make(chan string)
	var all sync.WaitGroup
	for range min(8, runtime.GOMAXPROCS(0)) {
		all.Go(func() {
			for id := range todo {
				x.pastOf(ctx, h, id)
			}
		})
	}
	for _, shelf := range shelves {
		dir := filepath.Join(root, shelf.Name())
		entries, err := os.ReadDir(dir)
		if err != nil {
			x.stray(dir, err)
			continue
		}
		for _, e := range entries {
			id := e.Name()
			if !e.IsDir() || !history.ValidID(id) || id[len(id)-2:] != shelf.Name() {
				x.stray(filepath.Join(dir, id), nil)
				continue
			}
			select {
			case todo <- id:
			case <-ctx.Done():
			}
		}
	}
	close(todo)
	all.Wait()
	return ctx.Err()
}

// stray tells of something in the folder of the history that is nobody's.
func (x *examination) stray(path string, err error) {
	if info, serr := os.Stat(path); err != nil && serr == nil && info.IsDir() {
		x.unreadable(path, err)
		return
	}
	x.add(Finding{Severity: Warning, Code: "unknown_file", Path: path, Message: "this is no history of a database", Fix: "move it elsewhere"})
}

// pastOf examines the history of one database.
func (x *examination) pastOf(ctx context.Context, h *history.History, id string) {
	d := x.known[id]
	place := filepath.Join(x.dir.History(), id[len(id)-2:], id)
	file := filepath.Join(x.dir.Databases(), id[len(id)-2:], id+".db")
	if d == nil && x.whole {
		fix := "the server takes it away when nobody has touched it for a day; if you miss the database, copy the folder elsewhere before you start it"
		if _, err := os.Lstat(file); err == nil {
			fix = "it stays as long as the file that no database of the catalog has, " + filepath.Base(file)
		}
		x.add(Finding{Severity: Info, Code: "history_orphan", Path: place, Message: "no database of the catalog has this history", Fix: fix})
		return
	}
	var log *os.File
	if f, err := os.Open(file + "-wal"); err == nil {
		defer f.Close()
		log = f
	} else if !errors.Is(err, fs.ErrNotExist) {
		x.unreadable(file+"-wal", err)
		return
	}
	c, err := h.Verify(ctx, id, log, x.opts.Full)
	x.mu.Lock()
	x.report.Histories++
	x.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		x.unreadable(place, err)
	}
	for _, p := range c.Problems {
		f := Finding{Severity: Error, Code: "history_damaged", Path: place, Database: nameOf(d), Message: p.String()}
		if p.File != "" {
			f.Path = filepath.Join(place, p.File)
			p.File = ""
			f.Message = p.String()
		}
		switch {
		case p.Foreign:
			f.Severity, f.Code, f.Fix = Warning, "unknown_file", "move it elsewhere"
		case p.Last > 0:
			f.Code = "history_gap"
			f.Fix = "the database as it is, and all other moments, are not concerned. If there is a copy of the missing or damaged files, from a backup of the directory, put them back; " +
				"else restore one of the moments around them, and no other: the server refuses these"
		default:
			f.Fix = "put this file back from a backup of the directory, if there is one; leave it as it is otherwise: the server passes it over, and drops it when its time is over"
		}
		x.add(f)
	}
	for _, what := range c.Unfinished {
		x.add(Finding{Severity: Info, Code: "history_unfinished", Path: place, Database: nameOf(d), Message: fmt.Sprintf("a process that was ended left work half done: %s", what), Fix: "the server finishes it by itself; nothing is lost"})
	}
}
