package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// form is a multipart body: name=value fields, then a file.
func form(t testing.TB, file []byte, fields ...string) (harness.Stream, harness.Header) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile("file", "upload")
	if err != nil {
		t.Fatal(err)
	}
	part.Write(file)
	w.Close()
	return harness.Stream{Reader: &b}, harness.Header("Content-Type: " + w.FormDataContentType())
}

func imports(t testing.TB, d *harness.DB, file []byte, headers ...harness.Header) *harness.Answer {
	t.Helper()
	body, kind := form(t, file)
	return d.Post(d.Path("import"), body, append(headers, kind)...)
}

func loads(t testing.TB, d *harness.DB, csv string, fields ...string) *harness.Answer {
	t.Helper()
	body, kind := form(t, []byte(csv), fields...)
	return d.Post(d.Path("load-csv"), body, kind)
}

// download reads an export as it is.
func download(t testing.TB, d *harness.DB, rest string) (*harness.Answer, []byte) {
	t.Helper()
	a := d.With(t).Get(d.Path(rest)).OK()
	return a, a.Raw
}

var shopSchema = []any{
	"CREATE TABLE items(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, price REAL, twice AS (price * 2))",
	"CREATE TABLE parts(item REFERENCES items(id) ON DELETE CASCADE, n INTEGER, PRIMARY KEY(item, n)) WITHOUT ROWID",
	"CREATE VIRTUAL TABLE words USING fts5(name)",
	"CREATE TRIGGER tr AFTER INSERT ON items BEGIN INSERT INTO words(rowid, name) VALUES(new.id, new.name); SELECT 1; END",
	"CREATE VIEW dear AS SELECT name FROM items WHERE price > 1",
	"INSERT INTO items(name, price) VALUES('tea; -- \n''x''', 1.5), ('cup', -0.0), ('null', NULL), ('inf', 9e999)",
	"INSERT INTO parts VALUES(1, 1), (1, 2), (2, 7)",
	"CREATE INDEX i ON items(price)",
}

const fingerprint = "SELECT (SELECT group_concat(quote(id) || quote(name) || quote(price), ';') FROM items) || (SELECT group_concat(item || n) FROM parts) || (SELECT group_concat(name) FROM words('cup')) || (SELECT group_concat(name, sql) FROM (SELECT * FROM sqlite_schema WHERE tbl_name NOT LIKE 'sqlite_persql%' ORDER BY name))"

func TestExportAndImport(t *testing.T) {
	row(t, "DP-T-1", "DP-T-2", "DP-T-3", "DP-T-8")
	d := db(t)
	d.Batch(false, shopSchema...).OK()
	d.Do("PUT", d.Path("describe"), body{"databaseDescription": "a shop"}).OK()
	d.Post(d.Path("query"), harness.Body("INSERT INTO parts VALUES(3, 3)"), key("kept")).OK()
	want := d.One(fingerprint)

	res, text := download(t, d, "export")
	if got := res.Header.Get("Content-Type"); got != "application/sql" {
		t.Errorf("content type %q", got)
	}
	if got := res.Header.Get("Content-Disposition"); got != "attachment; filename="+d.Slug+".sql" {
		t.Errorf("content disposition %q", got)
	}
	if !bytes.HasSuffix(text, []byte("COMMIT;\n")) || bytes.Contains(text, []byte("persql")) {
		t.Errorf("the text: %s", harness.Tail(string(text), 300))
	}
	res, file := download(t, d, "export?format=sqlite")
	if got := res.Header.Get("Content-Type"); got != "application/vnd.sqlite3" {
		t.Errorf("content type %q", got)
	}
	if !bytes.HasPrefix(file, []byte("SQLite format 3\x00")) || bytes.Contains(file, []byte("sqlite_persql")) || bytes.Contains(file, []byte("a shop")) {
		t.Error("the file is no SQLite file, or has what is the server's")
	}
	d.Get(d.Path("export?format=pdf")).Fails(http.StatusBadRequest, "bad_request")

	for name, upload := range map[string][]byte{"sql": text, "sqlite": file} {
		c := d.Client.DB(unused())
		a := imports(t, c, upload).OK()
		a.Is("data.imported", "true").Is("data.format", name).Is("data.databaseSlug", c.Slug)
		if got := c.One(fingerprint); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if got := c.One("PRAGMA integrity_check"); got != "ok" {
			t.Errorf("%s: %s", name, got)
		}
		// It lives like any other.
		c.Must("INSERT INTO items(name) VALUES('new')").Is("data.lastInsertRowid", "5")
		c.Query("INSERT INTO parts VALUES(99, 1)").Fails(http.StatusBadRequest, "").Kind("fk_violation")
		c.Must("DELETE FROM items WHERE name = 'cup'")
		if got := c.One("SELECT count(*) FROM parts WHERE item = 2"); got != "0" {
			t.Errorf("%s: the cascade is gone", name)
		}
	}
	// As the body itself, and added to what is there.
	c := d.Client.DB(unused())
	c.Post(c.Path("import"), harness.Raw(text), harness.Header("Content-Type: application/sql")).OK().Is("data.format", "sql")
	c.Post(c.Path("import"), harness.Raw("BEGIN; INSERT INTO items(name) VALUES('more'); END"), harness.Header("Content-Type: application/sql")).OK().Is("data.statements", "1")
	if got := c.One("SELECT count(*) FROM items"); got != "5" {
		t.Errorf("%s rows after adding", got)
	}
	// A file takes the place of all.
	imports(t, c, file).OK()
	if got := c.One("SELECT count(*) FROM items"); got != "4" {
		t.Errorf("%s rows after a file was imported", got)
	}
	imports(t, c, text, key("k")).Fails(http.StatusBadRequest, "invalid_idempotency_key")
	e := d.Client.DB(unused())
	e.Get(e.Path("export")).Fails(http.StatusNotFound, "not_found")
}

func TestImportThatFailsChangesNothing(t *testing.T) {
	row(t, "DP-T-4", "DP-T-7")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MAX_IMPORT=2MB", "PERSQLD_MAX_DATABASE=4MB", "PERSQLD_MAX_TRANSFERS=1"}})
	d := s.Client(t, harness.Token).DB("shop")
	d.Batch(false, shopSchema...).OK()
	want := d.One(fingerprint)
	_, text := download(t, d, "export")
	_, file := download(t, d, "export?format=sqlite")
	damaged := slices.Clone(file)
	copy(damaged[2*4096:], bytes.Repeat([]byte{0xff}, 4096))
	tests := []struct {
		name   string
		upload []byte
		status int
		code   string
		tells  string
	}{
		{"a table that is there", text, http.StatusBadRequest, "import_statement", "already exists"},
		{"a mistake", []byte("CREATE TABLE x(a);\nINSERT INTO x VALUES(1);\nSELEC 1;\n"), http.StatusBadRequest, "import_statement", "line 3"},
		{"cut off", []byte("CREATE TABLE x(a);\nINSERT INTO x VALUES('un"), http.StatusBadRequest, "import_incomplete", "line 2"},
		{"no end of its transaction", []byte("BEGIN;\nCREATE TABLE x(a);\n"), http.StatusBadRequest, "import_incomplete", ""},
		{"another file", []byte("ATTACH '/etc/passwd' AS p;"), http.StatusForbidden, "import_not_allowed", ""},
		{"the system's table", []byte("CREATE TABLE _persql_x(a);"), http.StatusForbidden, "import_not_allowed", ""},
		{"a lost parent", []byte("INSERT INTO parts VALUES(77, 1);"), http.StatusBadRequest, "import_foreign_key", "parts"},
		{"too large for the database", []byte("CREATE TABLE x(a); WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 2000) INSERT INTO x SELECT zeroblob(4000) FROM c;"), http.StatusBadRequest, "database_full", "PERSQLD_MAX_DATABASE"},
		{"too large", bytes.Repeat([]byte("SELECT 1;\n"), 300_000), http.StatusRequestEntityTooLarge, "upload_too_large", "PERSQLD_MAX_IMPORT"},
		{"damaged", damaged, http.StatusBadRequest, "", ""},
		{"half a file", file[:len(file)/2], http.StatusBadRequest, "", ""},
		{"a header alone", file[:100], http.StatusBadRequest, "import_invalid_file", ""},
		{"nothing", nil, http.StatusBadRequest, "empty_file", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := d.Client.With(t).DB(d.Slug)
			a := imports(t, d, tt.upload).Fails(tt.status, tt.code)
			if tt.tells != "" {
				a.Tells(tt.tells)
			}
			if got := d.One(fingerprint); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			d.Batch(true, "INSERT INTO parts VALUES(4, 99)", "DELETE FROM parts WHERE n = 99").OK()
		})
	}
	// A body that ends early.
	for _, part := range []int{0, 1, 100, len(text) / 2, len(text) - 1} {
		conn, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/sql\r\nContent-Length: %d\r\n\r\n%s", d.Path("import"), d.Token(), len(text), text[:part])
		conn.Close()
	}
	if code := s.Stop(t); code != 0 { // finishes what is under way: from here on everything has failed that will
		t.Errorf("exit code %d", code)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Data, "tmp", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	s = harness.Start(t, binary, harness.Options{Data: s.Data})
	if got := s.Client(t, harness.Token).DB("shop").One(fingerprint); got != want {
		t.Errorf("after uploads that were cut off: %s", got)
	}
}

// Reads go on while a database is being replaced, writes are told to wait, and a second import too.
func TestWritesWaitForAnImport(t *testing.T) {
	row(t, "DP-T-5", "DP-T-7")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MAX_TRANSFERS=1"}})
	d := s.Client(t, harness.Token).DB("busy")
	d.Must("CREATE TABLE t(a)")
	d.Must("INSERT INTO t VALUES(0)")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	slow := "INSERT INTO t SELECT 7; WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 6000000) SELECT count(*) FROM c;"
	done := make(chan int, 1)
	go func() { done <- s.Client(t, harness.Token).Send(ctx, d.Path("import"), harness.Raw(slow)) }()
	refused := 0
	for {
		select {
		case status := <-done:
			if status != http.StatusOK {
				t.Fatalf("import: %d", status)
			}
			if refused == 0 {
				t.Error("no write was told to wait")
			}
			if got := d.One("SELECT group_concat(a) FROM (SELECT a FROM t WHERE a IN (0, 7) ORDER BY a)"); got != "0,7" {
				t.Errorf("rows %s", got)
			}
			d.Must("INSERT INTO t VALUES(1)")
			return
		default:
		}
		switch a := d.Query("INSERT INTO t VALUES(5)"); a.Status {
		case http.StatusOK:
		case http.StatusServiceUnavailable:
			a.Fails(http.StatusServiceUnavailable, "database_rebuilding")
			d.Must("SELECT count(*) FROM t WHERE a = 0").Is("data.rows", "[[1]]")
			if refused++; refused == 1 {
				imports(t, d.Client.DB("other"), []byte("SELECT 1;")).Fails(http.StatusTooManyRequests, "transfers_busy")
			}
		default:
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
	}
}

// An export is of one moment, whatever is written meanwhile, and nothing acknowledged is missing in it.
func TestExportUnderLoad(t *testing.T) {
	row(t, "DP-T-1")
	d := db(t)
	d.Batch(false, "CREATE TABLE a(n)", "CREATE TABLE b(n)").OK()
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for ctx.Err() == nil {
				d.Batch(true, "INSERT INTO a VALUES(randomblob(3000))", "INSERT INTO b VALUES(1)").OK()
			}
		})
	}
	for i := range 6 {
		before := d.One("SELECT count(*) FROM a")
		_, text := download(t, d, "export")
		a, b := bytes.Count(text, []byte(`INTO "a"`)), bytes.Count(text, []byte(`INTO "b"`))
		if fmt.Sprint(a) < before && len(fmt.Sprint(a)) <= len(before) || a != b {
			t.Errorf("export %d: %d and %d rows, %s were there before", i, a, b, before)
		}
	}
	cancel()
	writers.Wait()
}

func TestLoadCSV(t *testing.T) {
	row(t, "DP-T-6", "DP-T-7", "DP-T-8")
	d := db(t)
	people := "id,name,born,score\n1,Ann,2001-02-03,1.5\n2,\"Bob, \"\"B\"\"\",,2\n007,,x,\n"
	a := loads(t, d, people, "table=people", "mode=create", "header=true").OK()
	a.Is("data.table", "people").Is("data.rowsInserted", "3").Is("data.columns", `["id","name","born","score"]`)
	rowsAre(t, d.Query("SELECT * FROM people"), `[["1","Ann","2001-02-03",1.5],["2","Bob, \"B\"",null,2.0],["007",null,"x",null]]`)
	loads(t, d, people, "table=people").Fails(http.StatusConflict, "table_exists")
	loads(t, d, "id\n9\n", "table=people", "mode=append").OK().Is("data.rowsInserted", "1")
	loads(t, d, "id\n9\n", "table=absent", "mode=append").Fails(http.StatusBadRequest, "").Kind("unknown_table")
	loads(t, d, "id,zz\n9,9\n", "table=people", "mode=append").Fails(http.StatusBadRequest, "").Kind("unknown_column")
	loads(t, d, "1,2\n3,4\n", "table=plain", "header=false").OK().Is("data.columns", `["column1","column2"]`)
	rowsAre(t, d.Query("SELECT * FROM plain"), "[[1,2],[3,4]]")
	loads(t, d, "id,name\n5,Eve\n", "table=people", "mode=replace").OK()
	rowsAre(t, d.Query("SELECT id, name FROM people"), `[["5","Eve"]]`)

	d.Must("CREATE TABLE u(a INTEGER PRIMARY KEY)")
	loads(t, d, "a\n1\n2\n1\n", "table=u", "mode=append").Fails(http.StatusBadRequest, "").Kind("unique_violation").Tells("row 3")
	if got := d.One("SELECT count(*) FROM u"); got != "0" {
		t.Errorf("half of a text: %s rows", got)
	}
	for _, tt := range []struct {
		csv    string
		fields []string
		status int
		code   string
	}{
		{"a,b\n1\n", []string{"table=x"}, http.StatusBadRequest, "import_invalid_csv"},
		{"a\n\"1\n", []string{"table=x"}, http.StatusBadRequest, "import_invalid_csv"},
		{"", []string{"table=x"}, http.StatusBadRequest, ""},
		{"a\n1\n", nil, http.StatusBadRequest, "bad_request"},
		{"a\n1\n", []string{"table=x", "mode=upsert"}, http.StatusBadRequest, "bad_request"},
		{"a\n1\n", []string{"table=x", "header=perhaps"}, http.StatusBadRequest, "bad_request"},
		{"a\n1\n", []string{"table=_persql_x"}, http.StatusForbidden, "system_object"},
		{"a\n" + strings.Repeat("1\n", 100_001), []string{"table=x"}, http.StatusRequestEntityTooLarge, "import_too_large"},
		{"a\n" + strings.Repeat("x", 10_000_001), []string{"table=x"}, http.StatusRequestEntityTooLarge, "upload_too_large"},
	} {
		loads(t, d, tt.csv, tt.fields...).Fails(tt.status, tt.code)
	}
	loads(t, d, "a\n"+strings.Repeat("1\n", 100_000), "table=many").OK().Is("data.rowsInserted", "100000")

	// A key loads it once, however the form is put together.
	for i := range 2 {
		b, kind := form(t, []byte("a\n1\n"), "table=once")
		a := d.Post(d.Path("load-csv"), b, kind, key("csv")).OK()
		if got := a.Header.Get("Idempotency-Replayed") == "true"; got != (i == 1) {
			t.Errorf("call %d replayed: %v", i, got)
		}
	}
	e := d.Client.DB(unused())
	loads(t, e, "a\n1\n", "table=made").OK()
}

// kill -9 in the middle of an import leaves the database as it was, or whole.
func TestCrashDuringImport(t *testing.T) {
	row(t, "DP-T-4")
	dir := t.TempDir()
	opt := harness.Options{Data: filepath.Join(dir, "data")}
	s := harness.Start(t, binary, opt)
	d := s.Client(t, harness.Token).DB("shop")
	d.Batch(false, shopSchema...).OK()
	var text strings.Builder
	text.WriteString("CREATE TABLE many(n);\n")
	for range 4000 {
		text.WriteString("INSERT INTO many VALUES(zeroblob(2000));\n")
	}
	want := d.One(fingerprint)
	for i := range 6 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Client(t, harness.Token).Send(t.Context(), d.Path("import"), harness.Raw(text.String()))
		}()
		time.AfterFunc(time.Duration(20+i*45)*time.Millisecond, s.Kill)
		<-done
		s.Kill()
		s = harness.Start(t, binary, opt)
		d = s.Client(t, harness.Token).DB("shop")
		if got := d.One("SELECT count(*) FROM sqlite_schema WHERE name = 'many'"); got == "1" {
			if n := d.One("SELECT count(*) FROM many"); n != "4000" {
				t.Fatalf("%s rows of 4000", n)
			}
			d.Must("DROP TABLE many")
		}
		if got := d.One(fingerprint); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		if got := d.One("PRAGMA integrity_check"); got != "ok" {
			t.Fatal(got)
		}
		if left, err := os.ReadDir(filepath.Join(opt.Data, "tmp")); err != nil || len(left) > 0 {
			t.Fatalf("left in tmp: %v, %v", left, err)
		}
	}
}
