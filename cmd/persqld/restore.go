package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/persqld/persqld/internal/adminsock"
	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/config"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/replica"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

type restoreCmd struct {
	config.Location `embed:"" group:"settings"`
	From            string `required:"" help:"A server's replica (its PERSQLD_REPLICA_URL) or a backup: file:///folder, or s3://bucket/prefix?endpoint=…&region=… with the usual AWS_ variables." placeholder:"URL"`
	Database        string `help:"Replace this database alone, by namespace/slug or id, in the data directory of a stopped server. Without it a whole server is made in an empty directory." placeholder:"NS/DB"`
	At              string `help:"The moment: a time of ISO 8601 or Unix milliseconds, or with --database a bookmark; the latest if left out." placeholder:"MOMENT"`
	Output          string `help:"With --database: write the database to a new file, and touch no data directory." placeholder:"FILE"`
}

var bookmarkForm = regexp.MustCompile(`^[0-9a-f]{16}-[0-9a-f]{8}$`)

// Validate refuses what goes not together, and moments of no form.
func (cmd *restoreCmd) Validate() error {
	if cmd.Output != "" && cmd.Database == "" {
		return errors.New("--output is for one database; name it with --database")
	}
	if bookmarkForm.MatchString(cmd.At) {
		if cmd.Database == "" {
			return errors.New("--at is a bookmark, which is of one database; name that with --database, or give a time")
		}
		return nil
	}
	_, err := momentOf(cmd.At, "")
	return err
}

// momentOf reads --at. The id of the database is needed for a bookmark.
func momentOf(text, id string) (replica.Target, error) {
	if text == "" {
		return replica.Target{}, nil
	}
	if bookmarkForm.MatchString(text) {
		position, err := history.ParseBookmark(id, text)
		if err != nil {
			return replica.Target{}, fmt.Errorf("--at: %w", err)
		}
		return replica.AtPosition(position), nil
	}
	if ms, ok := wire.ParseMoment(text); ok {
		return replica.AtTime(ms), nil
	}
	return replica.Target{}, fmt.Errorf("--at is %q; give a bookmark, Unix milliseconds or a time of ISO 8601 such as 2026-01-01T00:00:00Z", text)
}

// Run restores a server, or a database of one.
func (cmd *restoreCmd) Run(a *app) error {
	ctx, stop := signal.NotifyContext(a.ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	from, err := bucket.Open(cmd.From, bucket.Options{})
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	switch {
	case cmd.Output != "":
		err = cmd.file(ctx, a, from)
	case cmd.Database != "":
		err = cmd.database(ctx, a, from)
	default:
		err = cmd.server(ctx, a, from)
	}
	return interrupted(ctx, err)
}

// server makes a whole server in an empty directory.
func (cmd *restoreCmd) server(ctx context.Context, a *app, from bucket.Bucket) (err error) {
	target, err := momentOf(cmd.At, "")
	if err != nil {
		return err
	}
	dir, err := datadir.OpenEmpty(cmd.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := sqlite.Initialize(sqlite.Setup{TempDir: dir.Temp()}); err != nil {
		return err
	}
	progress := &meter{out: a.stderr, what: "restored", now: time.Now}
	r := &replica.Restorer{Bucket: from, Temp: dir.Temp()}
	report, err := r.Server(ctx, dir, target, progress.tell)
	progress.end()
	if err != nil {
		return errors.Join(interrupted(ctx, err), dir.Abandon())
	}
	if err := dir.Filled(); err != nil {
		return err
	}
	return a.tellOf(report, "restored")
}

// restoredInfo is a database that was restored, as it is printed.
type restoredInfo struct {
	Database string     `json:"database"`
	ID       string     `json:"id"`
	Of       string     `json:"restoredFrom"`       // the bookmark of the moment that it was restored to
	At       *time.Time `json:"restoredTo"`         // when that was committed
	Bookmark string     `json:"bookmark,omitempty"` // of the restore itself, in the directory
	Bytes    int64      `json:"bytes"`              // of the file
	Deleted  bool       `json:"deleted,omitempty"`  // it is in the trash
	Note     string     `json:"note,omitempty"`     // what went wrong beside it
}

func (i *restoredInfo) text(w io.Writer) error {
	at := "before its first transaction"
	if i.At != nil {
		at = "as of " + i.At.Format(time.RFC3339Nano)
	}
	fmt.Fprintf(w, "restored %s (%s) %s, bookmark %s, %d bytes\n", i.Database, i.ID, at, i.Of, i.Bytes)
	if i.Note != "" {
		fmt.Fprintf(w, "%s\n", i.Note)
	}
	if i.Deleted && i.Bookmark != "" {
		fmt.Fprintf(w, "it is in the trash; persqld database undelete %s brings it back\n", i.ID)
	}
	return nil
}

func restoredInfoOf(d replica.Named, got replica.Restored) *restoredInfo {
	i := &restoredInfo{Database: d.Name, ID: d.ID, Of: history.Bookmark(d.ID, got.Position), Bytes: got.Bytes, Deleted: d.Deleted()}
	if got.Time > 0 {
		t := time.UnixMilli(got.Time).UTC()
		i.At = &t
	}
	return i
}

// database replaces one in the directory of a server that doesn't run.
func (cmd *restoreCmd) database(ctx context.Context, a *app, from bucket.Bucket) (err error) {
	f, err := openFiles(ctx, cmd.Data)
	switch {
	case errors.Is(err, datadir.ErrLocked):
		return &adminsock.Error{Message: err.Error(), Code: "locked",
			Hint: "stop the server first; while it runs, POST …/restore brings back what its own history has, and --output writes what the replica has to a file"}
	case errors.Is(err, errNoData):
		return &adminsock.Error{Message: err.Error(), Code: "not_found",
			Hint: "leave --database out to make the whole server there, or give --output to have this database as a file"}
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, f.close(ctx)) }()
	d, err := replica.FindIn(f.cat, cmd.Database)
	if errors.Is(err, replica.ErrNoDatabase) {
		return &adminsock.Error{Message: err.Error(), Code: "not_found",
			Hint: "the server of this directory doesn't have it (any more); --output writes what the replica has of it to a file, which can be imported"}
	}
	if err != nil {
		return err
	}
	target, err := momentOf(cmd.At, d.ID)
	if err != nil {
		return err
	}
	if made, ok := madeAt(f.cat, d.ID); ok && target.Before(made) {
		return fmt.Errorf("--at: %s was made later, at %s", d.Name, made.UTC().Format(time.RFC3339Nano))
	}
	// What a killed server left in the log goes into the history first: the state before a restore stays there.
	var note string
	if f.past.history != nil {
		if err := f.store.Keep(ctx, d.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
			note = fmt.Sprintf("what was committed last before could not be kept: %v", err)
		}
	}
	if err := f.rest(ctx); err != nil {
		return err
	}
	// Before, so that no crash leaves a file whose counts the catalog takes for old ones.
	if err := f.dir.MarkRestored(); err != nil {
		return err
	}
	r := &replica.Restorer{Bucket: from, Temp: f.dir.Temp()}
	before, got, err := r.Replace(ctx, f.dir, d.ID, target)
	if err != nil {
		return err
	}
	info := restoredInfoOf(d, before)
	info.Note, info.Bookmark = note, history.Bookmark(d.ID, got)
	return a.print(info, info.text)
}

// madeAt is when a database was made.
func madeAt(c *catalog.Catalog, id string) (time.Time, bool) {
	if d, err := c.DatabaseByID(id); err == nil {
		return d.CreatedAt, true
	}
	d, err := c.Trashed(id)
	if err != nil {
		return time.Time{}, false
	}
	return d.CreatedAt, true
}

// file writes one database to a new file.
func (cmd *restoreCmd) file(ctx context.Context, a *app, from bucket.Bucket) error {
	if _, err := os.Lstat(cmd.Output); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fmt.Errorf("--output: %s: %w", cmd.Output, fs.ErrExist)
		}
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(cmd.Output), ".persqld-restore-")
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := sqlite.Initialize(sqlite.Setup{TempDir: temp}); err != nil {
		return err
	}
	r := &replica.Restorer{Bucket: from, Temp: temp}
	var when replica.Target // of the catalog: the latest for a bookmark
	if !bookmarkForm.MatchString(cmd.At) {
		if when, err = momentOf(cmd.At, ""); err != nil {
			return err
		}
	}
	d, err := r.Find(ctx, when, cmd.Database)
	if err != nil {
		return err
	}
	target, err := momentOf(cmd.At, d.ID)
	if err != nil {
		return err
	}
	path := filepath.Join(temp, "restored.db")
	got, err := r.Database(ctx, d.ID, target, path)
	if err != nil {
		return err
	}
	// A link fails where there is a file by now; a rename would replace it.
	if err := os.Link(path, cmd.Output); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	info := restoredInfoOf(d, got)
	return a.print(info, info.text)
}
