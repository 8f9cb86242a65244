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
	"syscall"
	"time"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/config"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/replica"
)

type backupCmd struct {
	config.Location `embed:"" group:"settings"`
	To              string `required:"" help:"Where to: file:///folder, or s3://bucket/prefix?endpoint=…&region=… with the usual AWS_ variables. What is there of earlier backups stays." placeholder:"URL"`
	Database        string `help:"This database alone, by namespace/slug or id, without the catalog; all if left out." placeholder:"NS/DB"`
}

// Run makes a whole copy of the server's databases and its catalog, whether or not the server runs.
func (cmd *backupCmd) Run(a *app) (err error) {
	ctx, stop := signal.NotifyContext(a.ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	to, err := bucket.Open(cmd.To, bucket.Options{})
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	src, done, err := a.source(ctx, cmd.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	root, err := filepath.Abs(cmd.Data)
	if err != nil {
		return err
	}
	progress := &meter{out: a.stderr, what: "backed up", now: time.Now}
	b := &replica.Backup{Bucket: to, Source: src, Temp: datadir.Layout(root).Temp(), Progress: progress.tell}
	var report *replica.Report
	if cmd.Database != "" {
		report, err = b.One(ctx, cmd.Database)
	} else {
		report, err = b.All(ctx)
	}
	progress.end()
	if err != nil {
		return interrupted(ctx, err)
	}
	return a.tellOf(report, "backed up")
}

// interrupted says so where an operation ended because of a signal, whatever it was doing then.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

var errInterrupted = errors.New("interrupted")

// tellOf prints a report. The command fails if a database did.
func (a *app) tellOf(r *replica.Report, what string) error {
	err := a.print(r, func(w io.Writer) error {
		for _, f := range r.Failed {
			fmt.Fprintf(w, "failed: %s (%s): %s\n", f.Name, f.ID, f.Error)
		}
		_, err := fmt.Fprintf(w, "%s: %d databases (%d of them empty), %d bytes, as of %s; %d failed\n", what, r.Databases, r.Empty, r.Bytes, r.Time.Format(time.RFC3339Nano), len(r.Failed))
		return err
	})
	if err == nil && len(r.Failed) > 0 {
		return errReported
	}
	return err
}

// meter tells people how far something is: on a terminal in one line, else now and then in a line of its own.
type meter struct {
	out      io.Writer
	what     string
	now      func() time.Time
	told     time.Time
	lineOpen bool
}

const (
	meterEvery     = 200 * time.Millisecond
	meterLineEvery = 10 * time.Second
)

// tell is called by one goroutine at a time.
func (m *meter) tell(p replica.Progress) {
	now := m.now()
	if m.told.IsZero() {
		m.told = now
	}
	every, before, after := meterLineEvery, "", "\n"
	if isTerminal(m.out) {
		every, before, after = meterEvery, "\r", ""
	}
	if now.Sub(m.told) < every {
		return
	}
	m.told = now
	m.lineOpen = after == ""
	fmt.Fprintf(m.out, "%s%s %d of %d databases, %d bytes%s", before, m.what, p.Done, p.Databases, p.Bytes, after)
}

// end ends a line that is begun.
func (m *meter) end() {
	if m.lineOpen {
		fmt.Fprintln(m.out)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&fs.ModeCharDevice != 0
}
