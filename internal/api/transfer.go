package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/transfer"
	"github.com/persqld/persqld/internal/wire"
)

// Exports and imports work on files of their own beside the databases: a few at a time, each for a bounded time.

var (
	errTransfersBusy  = errors.New("too many transfers")
	errTransferTime   = errors.New("transfer over its time limit")
	errUploadTooLarge = errors.New("upload too large")
)

// transferWait is how long a transfer waits for another to end.
const transferWait = time.Second

// transferPart is which part of the engine's memory an export or import may hold.
const transferPart = 4

// transferring runs f as one of the few transfers, in turns with long statements. Everything that is made in the directory
// that before and f are given is removed. before is done first, without one of the few places: it waits for the client.
func (x *exchange) transferring(before func(dir string) error, f func(ctx context.Context, dir string, pause func()) error) error {
	dir := filepath.Join(x.s.opt.Temp, "transfer-"+rand.Text())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make directory for a transfer: %w", store.DiskFull(err))
	}
	defer os.RemoveAll(dir)
	if before != nil {
		if err := before(dir); err != nil {
			return err
		}
	}
	wait := time.NewTimer(transferWait)
	defer wait.Stop()
	select {
	case x.s.transfers <- struct{}{}:
		defer func() { <-x.s.transfers }()
	case <-wait.C:
		return errTransfersBusy
	case <-x.r.Context().Done():
		return context.Canceled
	}
	limited, cancelLimit := context.WithTimeoutCause(x.r.Context(), x.s.opt.TransferTimeout, errTransferTime)
	defer cancelLimit()
	ctx, cancel := context.WithCancelCause(limited)
	defer cancel(nil)
	defer context.AfterFunc(x.s.interrupted, func() { cancel(store.ErrClosing) })()
	owner, err := x.s.opt.Placement.Owner(ctx, x.database.ID)
	if err != nil {
		return err
	}
	look, end := owner.Share(ctx, x.token.NamespaceID)
	defer end()
	share := transfer.Share{Look: look, Memory: x.s.opt.MemoryLimit / transferPart}
	if purse := x.tab.purse; purse.Open() { // a copy: a build that is left alone goes on beside the next request
		share.Afford = purse.Afford
	}
	err = f(transfer.WithShare(ctx, share), dir, end)
	if cause := context.Cause(ctx); err != nil && (errors.Is(cause, errTransferTime) || errors.Is(cause, store.ErrClosing)) {
		return cause
	}
	if errors.Is(err, transfer.ErrMemory) {
		return store.ErrHog
	}
	return err
}

// export serves GET …/export: the database as SQL text, or as a SQLite file.
func (s *Server) export(x *exchange) error {
	format := x.r.URL.Query().Get("format")
	switch format {
	case "":
		format = "sql"
	case "sql", "sqlite":
	default:
		return newFault(http.StatusBadRequest, codeBadRequest, "format must be sql or sqlite", "")
	}
	if err := x.openDatabase(false); err != nil {
		return err
	}
	if err := x.mayTransfer(); err != nil {
		return err
	}
	return x.transferring(nil, func(ctx context.Context, dir string, pause func()) error {
		owner, err := s.opt.Placement.Owner(ctx, x.database.ID)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, "copy.db")
		if err := owner.Copy(ctx, x.database.ID, path); err != nil {
			return err
		}
		out := &download{x: x, pause: pause, name: x.database.Slug + ".sql", contentType: "application/sql"}
		if format == "sql" {
			rows, err := transfer.Dump(ctx, out, path)
			s.opt.Metrics.rows(rows, 0)
			if err != nil {
				return out.broken(err)
			}
			return out.end()
		}
		if err := transfer.Strip(ctx, path); err != nil {
			return store.Translate(err, s.opt.Temp)
		}
		file, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("open export: %w", err)
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return fmt.Errorf("open export: %w", err)
		}
		out.name, out.contentType, out.length = x.database.Slug+".db", "application/vnd.sqlite3", info.Size()
		if _, err := io.CopyBuffer(struct{ io.Writer }{out}, file, make([]byte, 64<<10)); err != nil {
			return out.broken(err)
		}
		return out.end()
	})
}

// mayTransfer refuses a token that may not see or change all of the database.
func (x *exchange) mayTransfer() error {
	if err := x.needAdmin("exports and imports"); err != nil {
		return err
	}
	return x.needAllRows("exports and imports")
}

// download is an answer that is a file. Its header goes with the first byte, so that until then there can be a failure.
type download struct {
	x           *exchange
	name        string
	contentType string
	length      int64  // 0 is unknown
	pause       func() // before it waits for the client
	started     time.Time
	sent        int64
	begun       bool
}

func (d *download) begin() {
	d.begun, d.started = true, time.Now()
	d.x.sent = true
	h := d.x.w.Header()
	h["Content-Type"] = []string{d.contentType}
	h["Content-Disposition"] = []string{mime.FormatMediaType("attachment", map[string]string{"filename": d.name})}
	h["X-Request-Id"] = []string{d.x.id}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	if d.length > 0 {
		h["Content-Length"] = []string{fmt.Sprint(d.length)}
	}
	d.x.w.WriteHeader(http.StatusOK)
}

// Write sends bytes to a client that reads on.
func (d *download) Write(b []byte) (int, error) {
	if !d.begun {
		d.begin()
	}
	d.pause()
	d.sent += int64(len(b))
	// A connection that takes no deadline is bounded by whoever made it.
	_ = http.NewResponseController(d.x.w).SetWriteDeadline(slowest(d.started, d.sent))
	return d.x.w.Write(b)
}

// slowest is until when so many bytes must have come or gone that began at a time.
func slowest(began time.Time, bytes int64) time.Time {
	return began.Add(bodyTime + time.Duration(bytes)*time.Second/bodyRate)
}

func (d *download) end() error {
	if !d.begun {
		d.begin()
	}
	_ = http.NewResponseController(d.x.w).SetWriteDeadline(time.Time{})
	return nil
}

// broken ends a download that can't be finished. Once it has begun only a cut connection tells the client so.
func (d *download) broken(err error) error {
	if !d.begun {
		return err
	}
	if d.x.r.Context().Err() == nil {
		d.x.s.log.Warn("an export broke off", "database", d.x.database.ID, "error", err)
	}
	d.x.settle(http.StatusOK) // nothing answers it any more
	panic(http.ErrAbortHandler)
}

// imported is what an import answers.
type imported struct {
	Imported     bool          `json:"imported"`
	Format       string        `json:"format"`
	Statements   int64         `json:"statements"`
	RowsRead     int64         `json:"rowsRead"`
	RowsWritten  int64         `json:"rowsWritten"`
	DurationMs   int64         `json:"durationMs"`
	DatabaseSlug string        `json:"databaseSlug"`
	Snapshot     *snapshotName `json:"snapshot,omitempty"` // of what was there before
}

type snapshotName struct {
	ID    string `json:"id"`
	Label string `json:"label"`
}

// importFile serves POST …/import. SQL text runs, in one transaction, on what the database holds; a SQLite file takes
// its place. Either is done on a file beside the database, which then takes its place: a failure changes nothing.
func (s *Server) importFile(x *exchange) error {
	if err := x.refuseAnyKey(); err != nil {
		return err
	}
	if x.r.ContentLength > s.opt.MaxImport+1<<20 {
		return errUploadTooLarge
	}
	if err := x.openDatabase(true); err != nil {
		return err
	}
	if err := x.mayTransfer(); err != nil {
		return err
	}
	spool := func(dir string) error { return x.spool(filepath.Join(dir, "upload"), s.opt.MaxImport) }
	return x.transferring(spool, func(ctx context.Context, dir string, _ func()) error {
		upload := filepath.Join(dir, "upload")
		began := s.opt.Now()
		answer := imported{Imported: true, Format: "sql", DatabaseSlug: x.database.Slug}
		file, err := os.Open(upload)
		if err != nil {
			return fmt.Errorf("open upload: %w", err)
		}
		defer file.Close()
		head := make([]byte, 16)
		n, err := io.ReadFull(file, head)
		if n == 0 {
			return newFault(http.StatusBadRequest, "empty_file", "The file is empty", "send SQL text or a SQLite file")
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("read upload: %w", err)
		}
		if sqlite.IsDatabase(head[:n]) {
			answer.Format = "sqlite"
		}
		if err := x.refresh(); err != nil {
			return err
		}
		var approved *catalog.Approval
		if x.database.Rules != nil || x.r.Header["X-Approval-Token"] != nil {
			digest, err := digestOfFile(upload)
			if err != nil {
				return err
			}
			x.call = heldCall{kind: kindImport, digest: digest, title: "Import a file of the format " + answer.Format}
			if approved, err = x.presented(kindImport, digest); err != nil {
				return err
			}
			if err := x.guard(true); err != nil {
				return err
			}
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read upload: %w", err)
		}
		owner, err := s.opt.Placement.Owner(ctx, x.database.ID)
		if err != nil {
			return err
		}
		limits := s.opt.Limits
		limits.SQL = s.longestStatement()
		// What it counts comes by a channel: a build that is left alone goes on when nobody listens any more.
		reports := make(chan transfer.Report, 1)
		beginning := store.FromNothing
		if answer.Format == "sql" {
			beginning = store.FromCopy
		}
		before := x.before("import")
		purse := x.tab.purse // a copy, as in transferring
		afford := func(r *transfer.Report) error {
			if !purse.Open() {
				return nil
			}
			return purse.Afford(sqlite.Counts{RowsRead: r.RowsRead, RowsWritten: r.RowsWritten})
		}
		build := func(path string) (err error) {
			var report transfer.Report
			defer func() { reports <- report }()
			if answer.Format == "sql" {
				if report, err = transfer.Load(ctx, path, file, limits); err != nil {
					return err
				}
				return afford(&report)
			}
			if err := os.Rename(upload, path); err != nil {
				return fmt.Errorf("take the upload over: %w", err)
			}
			if err := transfer.Adopt(ctx, path, s.opt.Limits); err != nil {
				return err
			}
			if report.RowsWritten, err = transfer.CountRows(ctx, path); err != nil {
				return err
			}
			return afford(&report)
		}
		err = owner.Rebuild(ctx, x.database.ID, beginning, &store.Along{Label: &before, Permit: x.toSpend()}, build)
		if approved != nil && (err == nil || errors.Is(err, store.ErrSpent)) {
			err = x.concludeRedeem(approved, err)
		}
		select {
		case report := <-reports:
			answer.Statements, answer.RowsRead, answer.RowsWritten = report.Statements, report.RowsRead, report.RowsWritten
		default:
		}
		s.opt.Metrics.rows(answer.RowsRead, answer.RowsWritten)
		x.tab.worked = true
		x.tab.spent = sqlite.Counts{RowsRead: answer.RowsRead, RowsWritten: answer.RowsWritten}
		if emptyFault(err) != nil {
			x.tab.spent.RowsWritten = 0 // it was undone
		}
		if err == nil {
			err = x.settleNow()
		}
		if err != nil {
			return store.Translate(err, s.opt.Temp)
		}
		if s.opt.Past != nil {
			answer.Snapshot = &snapshotName{before.ID, before.Label}
		}
		x.record("database.imported", map[string]any{"format": answer.Format, "rowsWritten": answer.RowsWritten})
		answer.DurationMs = s.opt.Now().Sub(began).Milliseconds()
		return x.reply(answer)
	})
}

// spool writes the file of an upload to disk: the part "file" of a form, or the body as it is.
func (x *exchange) spool(path string, limit int64) error {
	from, rest, err := x.upload(nil)
	if err != nil {
		return err
	}
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write upload: %w", store.DiskFull(err))
	}
	defer to.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{to}, io.LimitReader(from, limit+1), make([]byte, 64<<10))
	if err == nil && n > limit {
		return errUploadTooLarge
	}
	if err != nil {
		if full := store.DiskFull(err); errors.Is(full, store.ErrDiskFull) {
			return full
		}
		return x.bodyError(err)
	}
	if err := rest(); err != nil {
		return err
	}
	return to.Close()
}

// longestStatement is the longest statement of an import, in bytes: it and what SQLite makes of it are in memory, six
// times its length, and seldom are two of them in hand at the same time.
func (s *Server) longestStatement() int {
	const least, most = 20_000_000, 1_000_000_000 // a value may have 16 MB; SQLite's own limit
	if s.opt.Buffers <= 0 {
		return most
	}
	return int(min(max(s.opt.Buffers/3, least), most))
}

// maxField is the longest value of a form's field, in bytes.
const maxField = 1024

// upload is the file of a request's body. The values of a form's other fields are put into fields, where that has their
// names; rest, called when the file has been read, reads what comes behind it, to the form's end: a form without one was
// cut off.
func (x *exchange) upload(fields map[string]string) (file io.Reader, rest func() error, err error) {
	x.r.Body = &patient{ReadCloser: x.r.Body, began: time.Now(), control: http.NewResponseController(x.w)}
	kind, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		for name := range fields {
			fields[name] = x.r.URL.Query().Get(name)
		}
		return x.r.Body, func() error { return nil }, nil
	}
	form, err := x.r.MultipartReader()
	if err != nil {
		return nil, nil, newFault(http.StatusBadRequest, codeBadRequest, "The form can't be read: "+err.Error(), "send multipart/form-data with a part named file")
	}
	part, err := x.nextFile(form, fields)
	if err == io.EOF {
		return nil, nil, newFault(http.StatusBadRequest, codeBadRequest, "The form has no part named file", "send multipart/form-data with a part named file")
	}
	if err != nil {
		return nil, nil, err
	}
	return part, func() error {
		switch _, err := x.nextFile(form, fields); err {
		case io.EOF:
			return nil
		case nil:
			return newFault(http.StatusBadRequest, codeBadRequest, "The form has more than one part named file", "send one file at a time")
		default:
			return err
		}
	}, nil
}

// nextFile reads a form up to its next file. io.EOF is its end.
func (x *exchange) nextFile(form *multipart.Reader, fields map[string]string) (*multipart.Part, error) {
	for {
		part, err := form.NextPart()
		if err == io.EOF {
			return nil, err
		}
		if err != nil {
			return nil, x.bodyError(err)
		}
		name := part.FormName()
		if name == "file" {
			return part, nil
		}
		value, err := io.ReadAll(io.LimitReader(part, maxField+1))
		if err != nil {
			return nil, x.bodyError(err)
		}
		if len(value) > maxField {
			return nil, newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("A field of the form has more than %d bytes", maxField), "")
		}
		if _, ok := fields[name]; ok {
			fields[name] = string(value)
		}
	}
}

// patient is a body that may take the longer the more of it has come.
type patient struct {
	io.ReadCloser
	began   time.Time
	bytes   int64
	control *http.ResponseController
}

func (p *patient) Read(b []byte) (int, error) {
	// A connection that takes no deadline is bounded by whoever made it.
	_ = p.control.SetReadDeadline(slowest(p.began, p.bytes))
	n, err := p.ReadCloser.Read(b)
	p.bytes += int64(n)
	if err != nil {
		_ = p.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// transferFault tells of an upload that was not taken.
func transferFault(e *transfer.Error) *fault {
	f := newFault(http.StatusBadRequest, "import_"+string(e.Reason), e.Message, e.Hint)
	switch e.Reason {
	case transfer.ReasonTooLarge:
		f.status = http.StatusRequestEntityTooLarge
	case transfer.ReasonNotAllowed:
		f.status = http.StatusForbidden
	}
	var sqlErr *sqlite.Error
	if errors.As(e, &sqlErr) && e.Place != nil {
		f.detail = sqlFault(sqlErr, []byte(e.Place.SQL), "").detail
		f.detail.offset = -1
		f.index = int(e.Place.Statement - 1)
		if f.hint == "" {
			f.hint = f.detail.hint
		}
	}
	return f
}

// loadCSV serves POST …/load-csv: rows of a CSV text, in one transaction.
func (s *Server) loadCSV(x *exchange) error {
	if x.r.ContentLength > s.opt.MaxCSV+1<<20 {
		return errUploadTooLarge
	}
	if err := x.openDatabase(true); err != nil {
		return err
	}
	if err := x.mayTransfer(); err != nil {
		return err
	}
	fields := map[string]string{"table": "", "mode": "", "header": ""}
	from, rest, err := x.upload(fields)
	if err != nil {
		return err
	}
	text, err := x.readText(from, s.opt.MaxCSV)
	if err != nil {
		return err
	}
	if err := rest(); err != nil {
		return err
	}
	if err := x.refresh(); err != nil {
		return err
	}
	job := &csvJob{x: x, table: fields["table"], mode: fields["mode"], named: true}
	header := true
	switch fields["header"] {
	case "", "true", "1", "yes", "on":
	case "false", "0", "no", "off":
		header, job.named = false, false
	default:
		return newFault(http.StatusBadRequest, codeBadRequest, "header must be true or false", "")
	}
	switch job.mode {
	case "":
		job.mode = "create"
	case "create", "append", "replace":
	default:
		return newFault(http.StatusBadRequest, codeBadRequest, "mode must be create, append or replace", "")
	}
	if job.table == "" {
		return newFault(http.StatusBadRequest, codeBadRequest, "The form has no field table", "send table=<name>")
	}
	if job.csv, err = transfer.ReadCSV(bytes.NewReader(text), transfer.CSVOptions{Header: header, MaxRows: int64(s.opt.MaxCSVRows), MaxBytes: s.opt.MaxCSV}); err != nil {
		return err
	}
	if len(job.csv.Columns) == 0 {
		return newFault(http.StatusBadRequest, "empty_file", "The file has no columns", "")
	}
	// The key stands for what is loaded, not for how the form was put together.
	x.body = text
	if err := x.readKey("load-csv\x00" + job.table + "\x00" + job.mode + "\x00" + fmt.Sprint(header)); err != nil {
		return err
	}
	digest := digestOf([]byte(job.table + "\x00" + job.mode + "\x00" + fmt.Sprint(header) + "\x00" + string(text)))
	x.call = heldCall{kind: kindLoadCSV, digest: digest, title: "Load rows of CSV", params: map[string]string{"table": job.table, "mode": job.mode, "header": fmt.Sprint(header)}}
	approved, err := x.presented(kindLoadCSV, digest)
	if err != nil {
		return err
	}
	x.gate.Whole = true // one approval for the table that is made and its rows
	if err = x.do(job); approved != nil && (err == nil || errors.Is(err, store.ErrSpent)) {
		err = x.concludeRedeem(approved, err)
	}
	s.opt.Metrics.rows(job.read, job.written)
	if err == nil {
		x.replayHeader()
		if !x.key.replayed {
			x.record("database.csv_loaded", map[string]any{"table": job.table, "mode": job.mode, "rowsWritten": job.written})
		}
	}
	return err
}

// readText reads a text of at most limit bytes into memory that is charged while it grows: for the text, and for each value
// once more while it is read and bound.
func (x *exchange) readText(from io.Reader, limit int64) ([]byte, error) {
	text := make([]byte, 0, freeBuffer/bodyFactor)
	for {
		if len(text) == cap(text) {
			grown := min(2*int64(cap(text)), limit+1)
			if err := x.charge(int(grown) * bodyFactor); err != nil {
				return nil, err
			}
			text = append(make([]byte, 0, grown), text...)
		}
		n, err := from.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if int64(len(text)) > limit {
			return nil, errUploadTooLarge
		}
		if err == io.EOF {
			return text, nil
		}
		if err != nil {
			return nil, x.bodyError(err)
		}
	}
}

// csvJob is run as a store.Job.
type csvJob struct {
	x     *exchange
	csv   *transfer.Table
	table string
	mode  string
	named bool // by a header: else the values go into the table's columns in their order

	read, written int64
}

// Run makes or empties the table and inserts the rows. The statements are judged like a client's.
func (j *csvJob) Run(tx *store.Tx) error {
	x := j.x
	j.read, j.written = 0, 0
	x.run.start(tx.Began())
	if done, err := x.replay(tx); done || err != nil {
		return err
	}
	if x.key.reused {
		return store.ErrKeyReused
	}
	if err := x.spend(tx); err != nil {
		return err
	}
	exists := false
	kinds := slices.Clone(j.csv.Columns) // what was inferred, for another run
	defer func() { j.csv.Columns = kinds }()
	err := tx.Query("SELECT 1 FROM pragma_table_list WHERE schema='main' AND type IN ('table','virtual') AND name=? COLLATE NOCASE", textParam(j.table), func(*sqlite.Stmt) error {
		exists = true
		return nil
	})
	if err != nil {
		return err
	}
	name := sqlite.Quote(j.table)
	switch {
	case exists && j.mode == "create":
		return newFault(http.StatusConflict, "table_exists", fmt.Sprintf("The table %s exists already", j.table), "use mode=append or mode=replace, or another table")
	case !exists && j.mode == "append":
		f := newFault(http.StatusBadRequest, kindUnknownTable, "no such table: "+j.table, "use mode=create")
		f.detail = &sqlDetail{kind: kindUnknownTable, message: f.message, table: j.table, hint: f.hint, offset: -1}
		return f
	case !exists:
		err = j.run(tx, "CREATE TABLE "+name+"("+j.columns(true)+")", nil)
	case j.mode == "replace":
		if err := x.run.automatic(tx, "load-csv into "+j.table); err != nil {
			return err
		}
		err = j.run(tx, "DELETE FROM "+name, nil)
	}
	if err == nil && exists {
		err = j.keepTexts(tx)
	}
	if err != nil {
		return err
	}
	places := bytes.Repeat([]byte(",?"), len(j.csv.Columns))[1:]
	insert := "INSERT INTO " + name
	if j.named || !exists {
		insert += "(" + j.columns(false) + ")"
	}
	insert += " VALUES(" + string(places) + ")"
	row := int64(0)
	for values := range j.csv.Rows() {
		row++
		if x.s.opt.Now().Sub(tx.Began()) > x.s.opt.StatementTimeout { // all of it holds the database, like one statement
			return store.ErrTimeout
		}
		if err := j.run(tx, insert, values); err != nil {
			if tx.Again() {
				return err // nobody is told of it
			}
			f := *x.s.faultOf(err)
			f.message = fmt.Sprintf("row %d: %s", row, f.message)
			return &batchFault{fault: f, err: err}
		}
	}
	x.success()
	b := append(x.out, `{"table":`...)
	b = wire.AppendString(b, j.table)
	b = append(b, `,"rowsInserted":`...)
	b = wire.AppendInt(b, row)
	b = append(b, `,"columns":[`...)
	for i, c := range j.csv.Columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = wire.AppendString(b, c.Name)
	}
	x.run.read, x.run.written, x.run.position = j.read, j.written, tx.Position()
	b = append(b, `]},"meta":`...)
	b = x.run.appendMeta(b, int(row)+1, tx.End().Sub(tx.Began()))
	x.out = append(b, '}')
	if x.key.given {
		return x.keep(tx)
	}
	return nil
}

// keepTexts has the fields for a table's TEXT columns bound as they stand: as numbers, 2 would become 2.0 in a column of
// which the file also has 1.5.
func (j *csvJob) keepTexts(tx *store.Tx) error {
	columns := slices.Clone(j.csv.Columns)
	at := 0
	err := tx.Query("SELECT name, type FROM pragma_table_xinfo(?) WHERE hidden=0 ORDER BY cid", textParam(j.table), func(s *sqlite.Stmt) error {
		name, text := str(s.Column(0)), affinity(str(s.Column(1))) == "TEXT"
		for i := range columns {
			if text && (j.named && strings.EqualFold(columns[i].Name, name) || !j.named && i == at) {
				columns[i].Type = sqlite.Text
			}
		}
		at++
		return nil
	})
	j.csv.Columns = columns
	return err
}

// columns lists the columns, for CREATE TABLE with their types.
func (j *csvJob) columns(types bool) string {
	var b []byte
	for i, c := range j.csv.Columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, sqlite.Quote(c.Name)...)
		if types {
			switch c.Type {
			case sqlite.Integer:
				b = append(b, " INTEGER"...)
			case sqlite.Real:
				b = append(b, " REAL"...)
			default:
				b = append(b, " TEXT"...)
			}
		}
	}
	return string(b)
}

func (j *csvJob) run(tx *store.Tx, sql string, params []sqlite.Param) error {
	s, err := j.x.run.prepare(tx, []byte(sql))
	if err != nil {
		return err
	}
	defer s.Done()
	res, err := tx.Run(s, params, nil)
	j.read += res.RowsRead
	j.written += res.RowsWritten
	if err != nil {
		return j.x.run.explain(tx, err, []byte(sql), j.table)
	}
	return nil
}

// refuseAnyKey refuses idempotency keys where an answer can't be kept with what was done.
func (x *exchange) refuseAnyKey() error {
	for _, name := range []string{"Idempotency-Key", "Plan-Key", "Plan-Step"} {
		if x.r.Header[name] != nil {
			return newFault(http.StatusBadRequest, "invalid_idempotency_key", "This call takes no "+name, "")
		}
	}
	return nil
}
