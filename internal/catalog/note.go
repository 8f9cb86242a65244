package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"runtime/debug"
	"sync"
)

// notes are entries of the audit log that nobody waits for. They are written with the next change, which begins at once if there is no other.
type notes struct {
	mu      sync.Mutex
	list    [][]any // rows, in order
	writing bool    // somebody is on the way to write them
}

// maxNotes is how many entries may wait for the disk; who adds one more waits for it too.
const maxNotes = 1000

// Note is Record for whoever doesn't wait for the disk. The entry is listed from now on, and stands before those of all later changes; a crash within the next
// moments may lose it.
func (c *Catalog) Note(ctx context.Context, action string, d *Database, metadata map[string]any) error {
	row, err := c.entry(ctx, databaseEvent(action, d, metadata))
	if err != nil {
		return err
	}
	c.notes.mu.Lock()
	full := len(c.notes.list) >= maxNotes
	if !full {
		c.notes.list = append(c.notes.list, row)
	}
	begin := !full && !c.notes.writing
	c.notes.writing = c.notes.writing || begin
	c.notes.mu.Unlock()
	if full {
		return c.Record(ctx, action, d, metadata)
	}
	if begin {
		go c.writeNotes()
	}
	return nil
}

// writeNotes writes entries until none waits. Those that can't be written go with the next change, or with the next Note.
func (c *Catalog) writeNotes() {
	defer func() {
		if p := recover(); p != nil {
			c.logger.Error("write audit log", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.notes.end(true)
		}
	}()
	for {
		err := c.flushNotes(context.Background())
		if err != nil {
			c.logger.Error("write audit log", "error", err)
		}
		if c.notes.end(err != nil) {
			return
		}
	}
}

// end ends the writing where nothing is left to write, or anyway.
func (n *notes) end(anyway bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.writing = !anyway && len(n.list) > 0
	return !n.writing
}

// flushNotes writes what waits, if anything does.
func (c *Catalog) flushNotes(ctx context.Context) error {
	if len(c.notes.waiting()) == 0 {
		return nil
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	return c.commitNotes(ctx)
}

// commitNotes is flushNotes for whoever holds changing.
func (c *Catalog) commitNotes(ctx context.Context) error {
	if len(c.notes.waiting()) == 0 {
		return nil // another change took them along
	}
	return c.commit(ctx, func(*sql.Tx) error { return nil }, func(*mirror) {})
}

// waiting are the rows that wait. They do until their transaction is committed.
func (n *notes) waiting() [][]any {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.list
}

// written ends the wait of the first ones.
func (n *notes) written(count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.list = n.list[count:]; len(n.list) == 0 {
		n.list = nil
	}
}
