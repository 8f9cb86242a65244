package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// Past restores what was: internal/history.
type Past interface {
	Restore(ctx context.Context, id string, at uint64, to string) error
	At(id string, ms int64) (uint64, error)
	Holds(id string, positions []uint64) ([]bool, error)
	Forget(id string) error
}

// Replica is the history off this machine: internal/replica.
type Replica interface {
	Forget(ctx context.Context, id string) error
}

// maxLabel is the most characters of a snapshot's label.
const maxLabel = 80

// snapshotID is a new snapshot's id.
func snapshotID() string { return catalog.NewID(strings.TrimSuffix(snapshotPrefix, "_")) }

const snapshotPrefix = "snap_"

var errNoHistory = newFault(http.StatusConflict, "no_history", "This server keeps no history", "start it with PERSQLD_HISTORY above 0s")

// mayRestore refuses a token that may not see or change all of the database, and a server without a history.
func (x *exchange) mayRestore(what string) error {
	if err := x.needAdmin(what); err != nil {
		return err
	}
	if err := x.needAllRows(what); err != nil {
		return err
	}
	if x.s.opt.Past == nil {
		return errNoHistory
	}
	return nil
}

// bookmark serves GET …/bookmark: the position of the last committed transaction.
func (s *Server) bookmark(x *exchange) error {
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if s.opt.Past == nil {
		return errNoHistory
	}
	owner, err := s.opt.Placement.Owner(x.r.Context(), x.database.ID)
	if err != nil {
		return err
	}
	position, at, err := owner.Position(x.r.Context(), x.database.ID)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, `{"bookmark":`...)
	b = wire.AppendString(b, history.Bookmark(x.database.ID, position))
	b = append(b, `,"at":`...)
	if position == 0 {
		at = time.Time{}
	}
	b = appendTime(b, at)
	x.out = append(b, `}}`...)
	return nil
}

// listSnapshots serves GET …/snapshots, the newest first.
func (s *Server) listSnapshots(x *exchange) error {
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayRestore("GET …/snapshots"); err != nil {
		return err
	}
	var list []store.Snapshot
	err := x.do(store.JobFunc(func(tx *store.Tx) (err error) {
		list, err = tx.Snapshots()
		return err
	}))
	if err != nil {
		return err
	}
	held, err := x.restorable(list)
	if err != nil {
		return err
	}
	x.success()
	b := append(x.out, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendSnapshot(b, x.database.ID, &list[i], held[i])
	}
	x.out = append(b, `]}`...)
	return nil
}

// restorable tells which snapshots' moments are still in the history.
func (x *exchange) restorable(list []store.Snapshot) ([]bool, error) {
	owner, err := x.s.opt.Placement.Owner(x.r.Context(), x.database.ID)
	if err != nil {
		return nil, err
	}
	// It has the history begin where none is: the former one may have been set aside.
	last, _, err := owner.Position(x.r.Context(), x.database.ID)
	if err != nil {
		return nil, err
	}
	positions := make([]uint64, len(list))
	for i := range list {
		positions[i] = list[i].Position
	}
	held, err := x.s.opt.Past.Holds(x.database.ID, positions)
	for i := range held {
		held[i] = held[i] && positions[i] <= last
	}
	return held, err
}

// createSnapshot serves POST …/snapshots: a label on the present moment.
func (s *Server) createSnapshot(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req struct {
		Label string `json:"label"`
	}
	if err := x.object(&req); err != nil {
		return err
	}
	if n := utf8.RuneCountInString(req.Label); n < 1 || n > maxLabel {
		return newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("A snapshot's label has 1 to %d characters", maxLabel), "")
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayRestore("POST …/snapshots"); err != nil {
		return err
	}
	var made store.Snapshot
	err := x.do(store.JobFunc(func(tx *store.Tx) (err error) {
		made, err = x.snapshot(tx, req.Label, false)
		return err
	}))
	if err != nil {
		return err
	}
	x.note("snapshot.created", map[string]any{"snapshotId": made.ID, "label": made.Label})
	x.success()
	x.out = append(appendSnapshot(x.out, x.database.ID, &made, true), '}')
	return nil
}

// snapshot puts a label on the moment before the request's transaction, whose own it then is.
func (x *exchange) snapshot(tx *store.Tx, label string, automatic bool) (store.Snapshot, error) {
	before, err := tx.Boundary()
	if err != nil {
		return store.Snapshot{}, err
	}
	n := store.Snapshot{ID: snapshotID(), Label: label, Position: before, CreatedAt: x.s.opt.Now().UnixMilli(), Automatic: automatic}
	return n, tx.AddSnapshot(n)
}

// automatic takes a snapshot before a statement that destroys, once a request.
func (r *run) automatic(tx *store.Tx, what string) error {
	if r.snapshot.ID != "" || r.x.s.opt.Past == nil {
		return nil
	}
	label := "before " + what
	if utf8.RuneCountInString(label) > maxLabel {
		label = string([]rune(label)[:maxLabel-1]) + "…"
	}
	made, err := r.x.snapshot(tx, label, true)
	if err == nil {
		r.snapshot = made
	}
	return err
}

// deleteSnapshot serves DELETE …/snapshots/:id: the label goes, the moment stays.
func (s *Server) deleteSnapshot(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayRestore("DELETE …/snapshots"); err != nil {
		return err
	}
	id := unescape(x.param("id"))
	if err := x.do(store.JobFunc(func(tx *store.Tx) error { return tx.DropSnapshot(id) })); err != nil {
		return err
	}
	x.note("snapshot.deleted", map[string]any{"snapshotId": id})
	x.success()
	b := append(x.out, `{"id":`...)
	b = wire.AppendString(b, id)
	x.out = append(b, `,"deleted":true}}`...)
	return nil
}

func appendSnapshot(b []byte, database string, n *store.Snapshot, restorable bool) []byte {
	b = append(b, `{"id":`...)
	b = wire.AppendString(b, n.ID)
	b = append(b, `,"label":`...)
	b = wire.AppendString(b, n.Label)
	b = append(b, `,"createdAt":`...)
	b = appendTime(b, time.UnixMilli(n.CreatedAt))
	b = append(b, `,"bookmark":`...)
	b = wire.AppendString(b, history.Bookmark(database, n.Position))
	b = append(b, `,"automatic":`...)
	b = strconv.AppendBool(b, n.Automatic)
	b = append(b, `,"restorable":`...)
	b = strconv.AppendBool(b, restorable)
	return append(b, '}')
}

// moment is a moment of a database, as a body names it: one of the three.
type moment struct {
	SnapshotID string         `json:"snapshotId"`
	Bookmark   string         `json:"bookmark"`
	Timestamp  jsontext.Value `json:"timestamp"` // Unix ms, or a text of ISO 8601
}

func (m *moment) check() error {
	given := 0
	for _, is := range []bool{m.SnapshotID != "", m.Bookmark != "", len(m.Timestamp) > 0 && m.Timestamp.Kind() != 'n'} {
		if is {
			given++
		}
	}
	if given != 1 {
		return newFault(http.StatusBadRequest, codeBadRequest, "The body names one moment: snapshotId, bookmark or timestamp", "GET …/snapshots lists snapshots, GET …/bookmark is the present moment")
	}
	return nil
}

// position is the position that a moment names. What was committed so far is in the history afterwards.
func (x *exchange) position(ctx context.Context, owner store.Runner, m *moment) (uint64, error) {
	if err := owner.Keep(ctx, x.database.ID); err != nil {
		return 0, err
	}
	last, _, err := owner.Position(ctx, x.database.ID)
	if err != nil {
		return 0, err
	}
	return x.positionOf(m, last, func() (list []store.Snapshot, err error) {
		err = x.do(store.JobFunc(func(tx *store.Tx) (err error) { list, err = tx.Snapshots(); return err }))
		return list, err
	})
}

// positionOf is the position that a moment names of a database whose history is complete up to the last one.
func (x *exchange) positionOf(m *moment, last uint64, snapshots func() ([]store.Snapshot, error)) (at uint64, err error) {
	switch {
	case m.SnapshotID != "":
		list, err := snapshots()
		if err != nil {
			return 0, err
		}
		for i := range list {
			if list[i].ID == m.SnapshotID {
				return list[i].Position, nil
			}
		}
		return 0, store.ErrNoSnapshot
	case m.Bookmark != "":
		if at, err = history.ParseBookmark(x.database.ID, m.Bookmark); err != nil {
			return 0, err
		}
	default:
		ms, err := m.time()
		if err != nil {
			return 0, err
		}
		if ms < x.database.CreatedAt.UnixMilli() {
			return 0, newFault(http.StatusConflict, "not_in_history", "The database was not there at that time", "it was made at "+x.database.CreatedAt.UTC().Format(timeFormat))
		}
		if at, err = x.s.opt.Past.At(x.database.ID, ms); err != nil {
			return 0, x.s.gap(x.database.ID, err)
		}
	}
	if at > last {
		return 0, newFault(http.StatusBadRequest, codeBadRequest, "The bookmark is of a moment that has not come", "GET …/bookmark is the present moment")
	}
	return at, nil
}

func (m *moment) time() (int64, error) {
	text := string(m.Timestamp)
	if m.Timestamp.Kind() == '"' {
		if err := json.Unmarshal(m.Timestamp, &text); err != nil {
			return 0, newFault(http.StatusBadRequest, codeBadRequest, "timestamp must be Unix milliseconds or a time in ISO 8601", "")
		}
	}
	ms, ok := wire.ParseMoment(text)
	if !ok {
		return 0, newFault(http.StatusBadRequest, codeBadRequest, "timestamp must be Unix milliseconds or a time in ISO 8601", "for example 1767225600000 or \"2026-01-01T00:00:00Z\"")
	}
	return ms, nil
}

// restore serves POST …/restore: the database as it was at a moment takes the place of what it is.
func (s *Server) restore(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var m moment
	if err := x.object(&m); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayRestore("POST …/restore"); err != nil {
		return err
	}
	x.call = heldCall{kind: kindRestore, body: x.body, title: "Restore the database"}
	if err := x.guard(true); err != nil {
		return err
	}
	return x.transferring(nil, func(ctx context.Context, _ string, _ func()) error {
		owner, err := s.opt.Placement.Owner(ctx, x.database.ID)
		if err != nil {
			return err
		}
		at, err := x.position(ctx, owner, &m)
		if err != nil {
			return err
		}
		before := x.before("restore")
		err = owner.Rebuild(ctx, x.database.ID, store.FromPast, &store.Along{Label: &before, Permit: x.toSpend()}, func(path string) error {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("make room for the restored file: %w", err)
			}
			if err := s.past(ctx, x.database.ID, at, path); err != nil {
				return err
			}
			return s.sound(ctx, x.database.ID, path)
		})
		if err != nil {
			return err
		}
		bookmark := history.Bookmark(x.database.ID, at)
		x.record("database.restored", map[string]any{"restoredTo": bookmark, "snapshotId": before.ID})
		x.success()
		b := append(x.out, `{"restoredTo":`...)
		b = wire.AppendString(b, bookmark)
		b = append(b, `,"snapshot":`...)
		x.out = append(appendSnapshot(b, x.database.ID, &before, true), `}}`...)
		return nil
	})
}

// before is the label of what a call is about to replace, but for its position.
func (x *exchange) before(what string) store.Snapshot {
	return store.Snapshot{ID: snapshotID(), Label: "before " + what, CreatedAt: x.s.opt.Now().UnixMilli(), Automatic: true}
}

// past writes a database as it was to a file.
func (s *Server) past(ctx context.Context, id string, at uint64, path string) error {
	return s.gap(id, store.DiskFull(s.opt.Past.Restore(ctx, id, at, path)))
}

// sound refuses a restored file that isn't. Meanwhile the file comes to the disk, so that whoever makes a database of it, and syncs it then, has little to wait for.
func (s *Server) sound(ctx context.Context, id, path string) error {
	synced := make(chan error, 1)
	go func() { synced <- syncFile(path) }()
	err := s.examine(ctx, id, path)
	if serr := <-synced; err == nil {
		err = store.DiskFull(serr)
	}
	return err
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// examine has the engine look at all of a restored file.
func (s *Server) examine(ctx context.Context, id, path string) error {
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.OpenInspection(path, th)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, c.Interrupt)() // the check of a large database takes its time
	problems, err := c.Examine(true)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var e *sqlite.Error
	if errors.As(err, &e) && (e.Code.Primary() == sqlite.CodeCorrupt || e.Code.Primary() == sqlite.CodeNotADB) {
		problems, err = append(problems, e.Message), nil
	}
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		s.log.Error("a restored database is not sound; it was thrown away", "database", id, "problem", problems[0])
		return newFault(http.StatusConflict, "history_damaged", "The database is damaged at this moment; nothing was changed", "choose a moment before or after it")
	}
	return nil
}

// gap makes of a moment that can't be restored what the client is told: the nearest ones, by names that it can send.
func (s *Server) gap(id string, err error) error {
	var gap *history.GapError
	if !errors.As(err, &gap) {
		return err
	}
	name := func(position uint64, ms int64) string {
		if position == 0 {
			return history.Bookmark(id, 0) + " (the empty database)"
		}
		if ms == 0 {
			return history.Bookmark(id, position)
		}
		return history.Bookmark(id, position) + " of " + time.UnixMilli(ms).UTC().Format(timeFormat)
	}
	nearest := "no moment can be restored"
	var list []string
	if gap.HasBefore {
		list = append(list, name(gap.Before, gap.BeforeTime))
	}
	if gap.HasAfter {
		list = append(list, name(gap.After, gap.AfterTime))
	}
	switch len(list) {
	case 1:
		nearest = "the nearest one is the bookmark " + list[0]
	case 2:
		nearest = "the nearest ones are the bookmarks " + list[0] + " and " + list[1]
	}
	return newFault(http.StatusConflict, "not_in_history", fmt.Sprintf("This moment is not in the history: %v; %s", gap.Cause, nearest), "restore one of the moments that are named, or GET …/snapshots")
}
