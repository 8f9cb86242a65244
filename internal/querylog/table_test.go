package querylog_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/sqlite"
)

// tenant opens a database whose statements can read its log.
func tenant(t testing.TB, l *querylog.Log, database string) *sqlite.Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tenant.db")
	write(t, path, sqlite.EmptyFile())
	th := sqlite.NewThread()
	conn, err := sqlite.Open(sqlite.Config{Path: path, Tables: []*sqlite.Table{l.Table(database)}}, th)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); th.Close() })
	return conn
}

// query runs a statement and returns its rows, a line each.
func query(t testing.TB, conn *sqlite.Conn, sql string) string {
	t.Helper()
	s, _, err := conn.Prepare([]byte(sql), nil)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer s.Done()
	if err := s.Bind(nil); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for {
		row, err := s.Step()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if !row {
			return strings.Join(lines, "\n")
		}
		var line []string
		for i := range s.Columns() {
			switch v := s.Column(i); v.Kind {
			case sqlite.Null:
				line = append(line, "NULL")
			case sqlite.Integer:
				line = append(line, fmt.Sprint(v.Int))
			case sqlite.Real:
				line = append(line, fmt.Sprint(v.Float))
			default:
				line = append(line, string(v.Bytes))
			}
		}
		lines = append(lines, strings.Join(line, "|"))
	}
}

func TestTable(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true})
	conn := tenant(t, l, "d")
	if got := query(t, conn, "SELECT count(*) FROM _persql_meta_query_log"); got != "0" {
		t.Errorf("empty: %s", got)
	}
	a := l.Append(querylog.Entry{
		Database: "d", TS: c.ms.Load(), SQL: []byte("SELECT 1"), RowsRead: 2, RowsWritten: 3, Duration: 1500 * time.Microsecond,
		Status: "ok", TokenID: "tok_1",
	})
	flush(t, l)
	b := l.Append(querylog.Entry{Database: "d", TS: c.ms.Load() + 5, Status: "error", Error: "no such table: x"})
	l.Append(querylog.Entry{Database: "other", TS: c.ms.Load(), SQL: []byte("SELECT 2"), Status: "ok"})
	want := fmt.Sprintf("%s|%d|NULL|0|0|0|error|no such table: x|NULL\n%s|%d|SELECT 1|2|3|1.5|ok|NULL|tok_1",
		b, c.ms.Load()+5, a, c.ms.Load())
	if got := query(t, conn, "SELECT * FROM _persql_meta_query_log"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for sql, want := range map[string]string{
		"SELECT sql FROM _persql_meta_query_log WHERE token_id = 'tok_1'":                          "SELECT 1",
		"SELECT typeof(duration_ms), sum(rows_read) FROM _persql_meta_query_log":                   "real|2",
		"SELECT status FROM _persql_meta_query_log ORDER BY ts LIMIT 1":                            "ok",
		"SELECT count(*) FROM _persql_meta_query_log x JOIN _persql_meta_query_log y ON x.id=y.id": "2",
		"SELECT id FROM _PERSQL_META_QUERY_LOG LIMIT 1":                                            b.String(),
	} {
		if got := query(t, conn, sql); got != want {
			t.Errorf("%s: got %s, want %s", sql, got, want)
		}
	}
	if s, _, err := conn.Prepare([]byte("DELETE FROM _persql_meta_query_log"), nil); err == nil {
		s.Done()
		t.Error("the log can be written to")
	}
	c.advance(7*24*time.Hour + time.Millisecond)
	if got := query(t, conn, "SELECT status FROM _persql_meta_query_log"); got != "error" {
		t.Errorf("after 7 days: %q", got)
	}
	l.Forget("d")
	if got := query(t, conn, "SELECT count(*) FROM _persql_meta_query_log"); got != "0" {
		t.Errorf("forgotten: %s", got)
	}
}

// A scan that is under way shows its own moment while entries come, go to the file and are dropped.
func TestTableIsOneMoment(t *testing.T) {
	c := newClock()
	l := begin(t, logPath(t), querylog.Options{Now: c.now, Text: true, KeepRows: 2000, MaxBuffer: 4 * querylog.SegmentBytes})
	for i := range 3000 {
		add(l, c, "d", fmt.Sprint(i))
		if i == 1500 {
			flush(t, l)
		}
	}
	rows, err := l.Table("d").Rows()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		if i == 3 || i == 1000 {
			for range 5000 {
				add(l, c, "d", "later")
			}
		}
		if i == 10 {
			flush(t, l)
		}
		if !rows.Next() {
			t.Fatalf("ends before row %d", i)
		}
		if got, want := string(rows.Column(2).Bytes), fmt.Sprint(2999-i); got != want {
			t.Fatalf("row %d: %s, want %s", i, got, want)
		}
	}
	if rows.Next() {
		t.Error("more rows than are kept")
	}
}

func TestTableOfClosedLog(t *testing.T) {
	l := begin(t, logPath(t), querylog.Options{})
	tab := l.Table("d")
	l.Close()
	if _, err := tab.Rows(); err == nil {
		t.Error("read a closed log")
	}
}
