package transfer_test

import (
	"context"
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/transfer"
)

// unicodeData is a table that nobody here made: Debian's package unicode-data, some 35,000 rows.
const unicodeData = "/usr/share/unicode/UnicodeData.txt"

// unicode is Unicode's character table in a database, read as CSV, with a full-text index of the names.
func unicode(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(unicodeData)
	if os.IsNotExist(err) {
		t.Skipf("%s is not there (Debian: apt-get install unicode-data): transfers of real data are not tested", unicodeData)
	}
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	w.Write([]string{"code", "name", "category", "combining", "bidi", "decomposition", "decimal", "digit", "numeric", "mirrored", "old name", "comment", "upper", "lower", "title"})
	for line := range strings.Lines(string(raw)) {
		w.Write(strings.Split(strings.TrimSuffix(line, "\n"), ";"))
	}
	w.Flush()
	tab, err := transfer.ReadCSV(strings.NewReader(b.String()), transfer.CSVOptions{Header: true})
	if err != nil {
		t.Fatal(err)
	}
	if tab.Count < 30_000 || tab.Count != int64(strings.Count(string(raw), "\n")) {
		t.Fatalf("%d rows", tab.Count)
	}
	var columns, marks []string
	for _, c := range tab.Columns {
		columns = append(columns, sqlite.Quote(c.Name)+" "+c.Type.String())
		marks = append(marks, "?")
	}
	path := fresh(t)
	edit(t, path, "CREATE TABLE characters("+strings.Join(columns, ", ")+")", "CREATE VIRTUAL TABLE names USING fts5(name, content='characters', tokenize='porter')",
		"CREATE VIRTUAL TABLE plane USING rtree_i32(id, low, high)")
	err = with(path, func(c *sqlite.Conn) error {
		if err := c.Exec("BEGIN"); err != nil {
			return err
		}
		s, err := c.Own("INSERT INTO characters VALUES(" + strings.Join(marks, ",") + ")")
		if err != nil {
			return err
		}
		for row := range tab.Rows() {
			if err := s.Bind(row); err != nil {
				return err
			}
			if _, err := s.Step(); err != nil {
				return err
			}
			s.Reset()
		}
		s.Done()
		for _, sql := range []string{"DELETE FROM characters WHERE rowid%97=0", "INSERT INTO names(names) VALUES('rebuild')",
			"INSERT INTO plane SELECT rowid, rowid, rowid+length(name) FROM characters WHERE category='Lu'", "CREATE INDEX categories ON characters(category, name)", "COMMIT", "PRAGMA journal_mode=WAL"} {
			if err := c.Exec(sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// found is what searches find.
func found(t *testing.T, path string) (all string) {
	t.Helper()
	err := with(path, func(c *sqlite.Conn) error {
		return rows(c, `SELECT code, name, (SELECT count(*) FROM plane WHERE low<rowid AND high>rowid-5) FROM characters
			WHERE rowid IN (SELECT rowid FROM names('snow* OR "greek small letter"')) ORDER BY rowid`, func(s string) { all += s + "\n" })
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestUnicodeGoesRound(t *testing.T) {
	path := unicode(t)
	want, hits := content(t, path), found(t, path)
	if !strings.Contains(hits, "SNOWMAN") || strings.Count(hits, "\n") < 50 {
		t.Fatalf("found %s", hits)
	}
	edit(t, path)
	text := dump(t, path)
	check := func(what, path string) {
		t.Helper()
		integrity(t, path)
		same(t, what, content(t, path), want)
		if got := found(t, path); got != hits {
			t.Errorf("%s: searches find %s", what, got)
		}
	}

	imported := fresh(t)
	load(t, imported, text)
	check("the text read back", imported)

	if err := transfer.Strip(context.Background(), imported); err != nil {
		t.Fatal(err)
	}
	check("the file that leaves", imported)
	if err := transfer.Adopt(context.Background(), imported, sqlite.Limits{}); err != nil {
		t.Fatal(err)
	}
	check("the file that comes back", imported)

	shells := filepath.Join(tempDir(t), "shell.db")
	shell(t, shells, text)
	check("what the shell read", shells)
	fromShell := fresh(t)
	load(t, fromShell, shell(t, shells, "", ".dump --preserve-rowids"))
	check("the shell's text read by us", fromShell)
}
