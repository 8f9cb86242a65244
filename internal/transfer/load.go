package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
)

// Report counts what a Load did, for the meter.
type Report struct {
	Statements  int64 // statements that ran; BEGIN, COMMIT and skipped pragmas are none
	RowsRead    int64 // as sqlite.Counts estimates them
	RowsWritten int64
}

// Load runs SQL text on the scratch database at path, in one transaction: all of it or nothing. The text is read in
// pieces; memory is bounded by some six times its longest statement. That is Limits.SQL bytes at most, by default
// SQLite's own bound of 1,000,000,000. The other limits are the database's.
//
// BEGIN, COMMIT, END and the pragmas of skippedPragmas are skipped; a text that has begun a transaction and doesn't end
// it is incomplete. What the shell's .dump writes for virtual tables is carried out as CREATE VIRTUAL TABLE. Foreign keys
// are checked in the end. After an error the scratch is worthless.
func Load(ctx context.Context, path string, sql io.Reader, limits sqlite.Limits) (Report, error) {
	if limits.SQL <= 0 {
		limits.SQL = maxLength
	}
	limits.Statements = 4 // no text is worth keeping, hardly any comes twice
	share, _ := ctx.Value(shareKey{}).(Share)
	l := &loader{ctx: ctx, script: script{r: sql, max: limits.SQL}, afford: share.Afford}
	if look := share.Look; l.afford != nil {
		share.Look = func() error {
			if err := l.affords(); err != nil || look == nil {
				return err
			}
			return look()
		}
		ctx = WithShare(ctx, share)
	}
	err := use(ctx, sqlite.Scratch{Path: path, Shadows: true, Limits: limits}, func(c *sqlite.Conn) error {
		l.conn = c
		return l.run()
	})
	if err == nil {
		err = inspect(ctx, path)
	}
	if err != nil {
		return l.report, fmt.Errorf("import SQL text: %w", err)
	}
	return l.report, nil
}

// loader runs one text.
type loader struct {
	ctx    context.Context
	conn   *sqlite.Conn
	script script
	gate   gate.Gate
	report Report
	number int64 // of the statement in hand, skipped ones included

	afford  func(sqlite.Counts) error
	running *sqlite.Stmt

	open  bool // the text has begun a transaction
	begun bool // it has, perhaps ended since: the dump of an empty database
	seen  seen // what the policy saw of the statement in hand

	counters []sqlite.Param // name and last value of each AUTOINCREMENT table that was there before
	cleared  bool           // the text has emptied sqlite_sequence
	sequence bool           // makeSequence was tried
}

// seen is what a statement was recognized as while it was compiled.
type seen struct {
	begin, commit bool
	schemaInsert  bool // it inserts into sqlite_schema, as each CREATE does too
	create        bool
}

func (l *loader) run() error {
	before, err := takeStock(l.conn)
	if err != nil {
		return err
	}
	if l.counters, err = counters(l.conn); err != nil {
		return err
	}
	if err := l.conn.Exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := l.statements(); err != nil {
		return err
	}
	if l.cleared {
		if err := l.restoreCounters(); err != nil {
			return err
		}
	}
	after, err := takeStock(l.conn)
	if err != nil {
		return err
	}
	if err := after.since(before); err != nil {
		return err
	}
	return l.conn.Exec("COMMIT")
}

func (l *loader) statements() error {
	for min := 0; ; {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		b, last, err := l.script.piece(min)
		if err == errTooLong {
			place := l.script.place(l.number+1, b)
			return &Error{Reason: ReasonTooLarge, Place: place, Message: fmt.Sprintf("%v: a statement of more than %d bytes, which is the limit: %s", place, l.script.max, place.SQL),
				Hint: "split it, or look for a quote that isn't closed"}
		}
		if err != nil {
			return fmt.Errorf("read the text: %w", err)
		}
		if blank(b) == len(b) && last {
			break
		}
		l.number++
		l.seen = seen{}
		s, n, err := l.conn.Prepare(b, l.permit)
		var failed *sqlite.Error
		switch {
		case errors.As(err, &failed) && failed.Message == incompleteInput && !last:
			l.number--
			min = 2 * len(b) // a square of a trigger's length would be too much
			continue
		case err != nil && l.seen.schemaInsert && !l.seen.create && failed != nil && failed.Code != sqlite.CodeAuth:
			n, err = l.schemaRows(b)
		case err != nil && failed != nil && failed.Message == "no such table: sqlite_sequence" && !l.sequence:
			// The shell's .dump expects the table to be there, though the last one with AUTOINCREMENT was dropped.
			l.number--
			l.sequence = true
			if err := l.makeSequence(); err != nil {
				return err
			}
			continue
		case s != nil:
			err = l.step(s)
			s.Done()
		}
		if err != nil {
			return l.explain(err, b, last)
		}
		if s == nil && n == 0 {
			n = len(b)
		}
		l.note()
		l.script.take(n)
		min = 0
	}
	switch {
	case l.open:
		return &Error{Reason: ReasonIncomplete, Message: "The SQL text begins a transaction and ends before its COMMIT",
			Hint: "the text was cut off: export or send it again"}
	case l.report.Statements == 0 && !l.begun:
		return &Error{Reason: ReasonIncomplete, Message: "The SQL text holds no statement that does anything",
			Hint: "the file is empty or was cut off"}
	}
	return nil
}

// incompleteInput is what SQLite says of a statement whose end is missing.
const incompleteInput = "incomplete input"

// affords asks whether the text may go on, for what it has cost.
func (l *loader) affords() error {
	if l.afford == nil {
		return nil
	}
	c := sqlite.Counts{RowsRead: l.report.RowsRead, RowsWritten: l.report.RowsWritten}
	if l.running != nil {
		more := l.running.Cost()
		c.RowsRead += more.RowsRead
		c.RowsWritten += more.RowsWritten
	}
	return l.afford(c)
}

// step runs a statement and drops its rows.
func (l *loader) step(s *sqlite.Stmt) error {
	if s.Vacuum {
		return &gate.Refusal{Code: gate.CodeNotAllowed, Message: "VACUUM can't run within an import", Hint: "take it out: an import needs none"}
	}
	if s.Params() > 0 {
		return &gate.Refusal{Code: gate.CodeNotAllowed, Message: "The statement has parameters, and an import has no values for them",
			Hint: "write the values into the text"}
	}
	if err := l.onShadow(s); err != nil {
		return err
	}
	if len(s.Accesses) == 0 && !s.Writes && s.Columns() == 0 {
		return nil // skipped
	}
	if err := l.affords(); err != nil {
		return err
	}
	before := l.conn.TotalChanges()
	l.running = s
	row, err := true, error(nil)
	for row && err == nil {
		row, err = s.Step()
	}
	l.running = nil
	// One that failed has read and written too.
	counts := s.Counts(l.conn.TotalChanges() - before)
	l.report.RowsRead += counts.RowsRead
	l.report.RowsWritten += counts.RowsWritten
	if err != nil {
		return err
	}
	l.report.Statements++
	if !l.cleared {
		for _, a := range s.Accesses {
			l.cleared = l.cleared || a.Action == sqlite.Delete && strings.EqualFold(a.Name, "sqlite_sequence") && !s.Alters
		}
	}
	return nil
}

// onShadow refuses a trigger of a shadow table, which no client can make and with which the schema can't be read.
func (l *loader) onShadow(s *sqlite.Stmt) error {
	for _, a := range s.Accesses {
		if a.Action != sqlite.CreateTrigger || sqlite.ShadowOf(a.Detail) == "" {
			continue
		}
		shapes, err := l.conn.Shapes()
		if err != nil {
			return err
		}
		if shapes[lower(a.Detail)].Shadow {
			return &gate.Refusal{Code: gate.CodeSystem, Message: fmt.Sprintf("%s belongs to a virtual table and can't have a trigger", a.Detail), Hint: "take the trigger out"}
		}
	}
	return nil
}

// note keeps account of the transaction that the text means to be in.
func (l *loader) note() {
	if l.seen.begin {
		l.open, l.begun = true, true
	}
	if l.seen.commit {
		l.open = false
	}
}

// skippedPragmas are settings of a connection or a file that dumps carry and that an import decides itself: foreign
// keys are checked at its end, the file keeps its encoding, page size and journal.
var skippedPragmas = map[string]bool{
	"foreign_keys": true, "defer_foreign_keys": true, "writable_schema": true, "encoding": true, "page_size": true,
	"auto_vacuum": true, "journal_mode": true, "journal_size_limit": true, "synchronous": true, "locking_mode": true,
	"cache_size": true, "cache_spill": true, "temp_store": true, "mmap_size": true, "busy_timeout": true, "legacy_file_format": true,
	"legacy_alter_table": true, "recursive_triggers": true, "secure_delete": true, "threads": true, "trusted_schema": true,
	"wal_autocheckpoint": true, "automatic_index": true, "optimize": true, "analysis_limit": true,
	"integrity_check": true, "quick_check": true, "foreign_key_check": true,
}

// permit is the policy of an import: the gate's, and what the text of a dump needs beside.
func (l *loader) permit(a sqlite.Access) error {
	switch a.Action {
	case sqlite.Transaction:
		switch a.Name {
		case "BEGIN":
			l.seen.begin = true
			return sqlite.ErrIgnore
		case "COMMIT": // and END
			l.seen.commit = true
			return sqlite.ErrIgnore
		}
		return &gate.Refusal{Code: gate.CodeTransaction, Message: "ROLLBACK can't be imported: the text runs as one transaction",
			Hint: "a dump of the sqlite3 shell that ends in ROLLBACK was made from a damaged database: repair it with .recover first"}
	case sqlite.Savepoint:
		return &gate.Refusal{Code: gate.CodeTransaction, Message: "SAVEPOINT, RELEASE and ROLLBACK TO can't be imported: the text runs as one transaction",
			Hint: "take them out of the text"}
	case sqlite.Pragma:
		if skippedPragmas[lower(a.Name)] {
			return sqlite.ErrIgnore
		}
	case sqlite.CreateTable, sqlite.CreateIndex, sqlite.CreateView, sqlite.CreateTrigger, sqlite.CreateVTable:
		l.seen.create = true
	case sqlite.Insert:
		l.seen.schemaInsert = l.seen.schemaInsert || isSchema(a.Name)
	}
	return l.gate.Permit(a)
}

func isSchema(name string) bool {
	n := lower(name)
	return n == "sqlite_master" || n == "sqlite_schema"
}

// explain says which statement failed, and what to do.
func (l *loader) explain(err error, b []byte, last bool) error {
	if ctx := l.ctx.Err(); ctx != nil {
		return ctx
	}
	var refusal *gate.Refusal
	var mine *Error
	var sq *sqlite.Error
	e := &Error{Reason: ReasonStatement, Place: l.script.place(l.number, b), err: err}
	switch {
	case errors.As(err, &refusal):
		e.Reason, e.Hint = ReasonNotAllowed, refusal.Hint
		e.Message = fmt.Sprintf("%v: %s: %s", e.Place, refusal.Message, e.Place.SQL)
		return e
	case errors.As(err, &mine):
		mine.Place = e.Place
		mine.Message = fmt.Sprintf("%v: %s: %s", e.Place, mine.Message, e.Place.SQL)
		return mine
	case !errors.As(err, &sq):
		return err
	}
	switch sq.Code.Primary() {
	case sqlite.CodeFull, sqlite.CodeIOErr, sqlite.CodeNoMem, sqlite.CodeCantOpen, sqlite.CodeReadonly:
		return fmt.Errorf("%v: %w", e.Place, err) // not the text's fault
	}
	var open scanner
	open.scan(b, true)
	if last && (sq.Message == incompleteInput || open.in != inNothing && open.in != inLine) {
		e.Reason, e.Hint = ReasonIncomplete, "the text was cut off: export or send it again"
		e.Message = fmt.Sprintf("%v: the text ends within a statement: %s", e.Place, e.Place.SQL)
		return e
	}
	e.Hint = hint(sq, e.Place.SQL)
	e.Message = fmt.Sprintf("%v: %s: %s", e.Place, sq.Message, e.Place.SQL)
	return e
}

// hint is what to do about an error of SQLite's.
func hint(e *sqlite.Error, sql string) string {
	switch {
	case strings.HasSuffix(e.Message, "already exists"):
		return "the text adds to the database: drop the object first, or import into an empty database"
	case strings.HasPrefix(sql, "."):
		return "commands of the sqlite3 shell are not SQL: take the line out"
	case e.Code.Primary() == sqlite.CodeConstraint:
		return "a row of the text breaks a constraint, maybe beside a row that the database has already"
	case e.Code.Primary() == sqlite.CodeTooBig:
		return "a value or a row is larger than the limit"
	case strings.Contains(e.Message, "zero byte"):
		return "the text must be UTF-8 without zero bytes"
	}
	return "nothing was imported: mend the statement and send the text again"
}

// makeSequence makes SQLite make its table of counters, which stays for good.
func (l *loader) makeSequence() error {
	name := unused(l.conn)
	if err := l.conn.Exec("CREATE TABLE " + name + "(id INTEGER PRIMARY KEY AUTOINCREMENT)"); err != nil {
		return err
	}
	return l.conn.Exec("DROP TABLE " + name)
}

// unused is a name that no object has.
func unused(c *sqlite.Conn) string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("transfer_%d", i)
		if v, err := first(c, "SELECT 1 FROM sqlite_schema WHERE name=?1 COLLATE NOCASE", text(name)); err != nil || v.Kind == sqlite.Null {
			return name
		}
	}
}

// counters are the names and last values of the AUTOINCREMENT tables.
func counters(c *sqlite.Conn) (all []sqlite.Param, err error) {
	v, err := first(c, "SELECT 1 FROM sqlite_schema WHERE name='sqlite_sequence'")
	if err != nil || v.Kind == sqlite.Null {
		return nil, err
	}
	err = each(c, "SELECT name, seq FROM sqlite_sequence", nil, func(s *sqlite.Stmt) error {
		if seq := s.Column(1); seq.Kind == sqlite.Integer {
			all = append(all, text(string(s.Column(0).Bytes)), integer(seq.Int))
		}
		return nil
	})
	return all, err
}

// restoreCounters undoes what the DELETE FROM sqlite_sequence of a dump did to tables that the dump doesn't know: their
// next rows would take the rowids of deleted ones.
func (l *loader) restoreCounters() error {
	for i := 0; i < len(l.counters); i += 2 {
		name, seq := l.counters[i], l.counters[i+1]
		v, err := first(l.conn, "SELECT 1 FROM sqlite_schema WHERE type='table' AND name=?1", name)
		if err != nil {
			return err
		}
		if v.Kind == sqlite.Null {
			continue // dropped
		}
		for _, sql := range []string{
			"UPDATE sqlite_sequence SET seq=max(seq, ?2) WHERE name=?1",
			"INSERT INTO sqlite_sequence(name, seq) SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name=?1)",
		} {
			if err := each(l.conn, sql, []sqlite.Param{name, seq}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}
