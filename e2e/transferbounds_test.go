package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// An import inside of a call that nothing interrupts is answered at its limit, and keeps neither the database nor one of
// the few places.
func TestStuckImport(t *testing.T) {
	row(t, "DP-T-4", "DP-T-5")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_TRANSFER_TIMEOUT=1s", "PERSQLD_MAX_TRANSFERS=1"}})
	d := s.Client(t, harness.Token).DB("stuck")
	d.Must("CREATE TABLE t(a)")
	began := time.Now()
	imports(t, d, []byte("INSERT INTO t SELECT instr(zeroblob(9000000), CAST(zeroblob(4000000) || x'01' AS BLOB));")).Fails(http.StatusRequestTimeout, "transfer_timeout")
	if took := time.Since(began); took > slack(4*time.Second) {
		t.Errorf("answered after %s", took)
	}
	d.Must("INSERT INTO t VALUES(1)")
	imports(t, d, []byte("INSERT INTO t VALUES(2);")).OK()
	if got := d.One("SELECT group_concat(a) FROM t"); got != "1,2" {
		t.Errorf("rows %s", got)
	}
	s.Kill()
}

// Who sends slowly takes none of the few places.
func TestSlowUploadTakesNoPlace(t *testing.T) {
	row(t, "DP-T-7")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MAX_TRANSFERS=1"}})
	d := s.Client(t, harness.Token).DB("busy")
	d.Must("CREATE TABLE t(a)")
	for range 3 {
		conn, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\nINSERT", d.Path("import"), harness.Token)
	}
	imports(t, d, []byte("INSERT INTO t VALUES(2);")).OK()
}

// Bodies of unknown length are charged while they grow.
func TestUploadsKeepToTheBudget(t *testing.T) {
	row(t, "DP-F-4")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MEMORY=32MiB"}})
	d := s.Client(t, harness.Token).DB("csv")
	d.Must("CREATE TABLE t(a)")
	text := "a\n" + strings.Repeat(strings.Repeat("x", 999)+"\n", 600)
	var all sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	hold, release := context.WithCancel(t.Context())
	for range 12 {
		all.Go(func() {
			conn, err := net.Dial("tcp", s.Addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST %s?table=t&mode=append HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", d.Path("load-csv"), harness.Token, len(text), text)
			<-hold.Done()
			fmt.Fprintf(conn, "0\r\n\r\n")
			var b [64]byte
			n, _ := conn.Read(b[:])
			var status int
			fmt.Sscanf(string(b[:n]), "HTTP/1.1 %d", &status)
			mu.Lock()
			statuses[status]++
			mu.Unlock()
		})
	}
	// Somebody is refused while others hold what there is.
	eventually(t, 20*time.Second, func() bool {
		return d.Post(d.Path("query"), harness.Body("SELECT length(?)", strings.Repeat("y", 1_500_000))).Status == http.StatusServiceUnavailable
	})
	release()
	all.Wait()
	if statuses[http.StatusServiceUnavailable] == 0 || statuses[http.StatusOK] == 0 {
		t.Errorf("answers %v, want some 200 and some 503", statuses)
	}
	d.Post(d.Path("query"), harness.Body("SELECT length(?)", strings.Repeat("y", 1_500_000))).OK()
}

// A form is read to its end before anything is done.
func TestWholeForms(t *testing.T) {
	row(t, "DP-T-3")
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	file := func(sql string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x.sql\"\r\n\r\n" + sql + "\r\n"
	}
	field := func(name, value string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	insert := "INSERT INTO t VALUES(1);"
	send := func(call, form string) *harness.Answer {
		return d.Post(d.Path(call), harness.Raw(form), harness.Header("Content-Type: multipart/form-data; boundary=b"))
	}
	send("import", file(insert)+file(insert)+"--b--\r\n").Fails(http.StatusBadRequest, "bad_request")
	send("import", file(insert)).Fails(http.StatusBadRequest, "")
	send("import", field("other", "x")+"--b--\r\n").Fails(http.StatusBadRequest, "bad_request")
	if got := d.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("%s rows of forms that were refused", got)
	}
	send("import", file(insert)+field("other", "x")+"--b--\r\n").OK()
	send("load-csv", file("a\n7\n")+field("table", "t")+field("mode", "append")+"--b--\r\n").OK().Is("data.rowsInserted", "1")
	if got := d.One("SELECT group_concat(a) FROM t"); got != "1,7" {
		t.Errorf("rows %s", got)
	}
}

// What is in a table that is there already decides how a field is kept.
func TestLoadCSVIntoATable(t *testing.T) {
	row(t, "DP-T-6")
	d := db(t)
	d.Must("CREATE TABLE ex(zip TEXT, n INTEGER, v)")
	loads(t, d, "zip,n,v\n1.50,1e3,1.0\n2,5,2\n", "table=ex", "mode=append").OK()
	rowsAre(t, d.Query("SELECT zip, n, typeof(v) FROM ex"), `[["1.50",1000,"real"],["2",5,"real"]]`)
	loads(t, d, "7,8,9\n", "table=ex", "mode=append", "header=false").OK()
	rowsAre(t, d.Query("SELECT zip, n, v FROM ex WHERE n = 8"), `[["7",8,9]]`)
	loads(t, d, "7,8\n", "table=ex", "mode=append", "header=false").Fails(http.StatusBadRequest, "")

	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_STATEMENT_TIMEOUT=300ms"}})
	slow := s.Client(t, harness.Token).DB("slow")
	slow.Must("CREATE TABLE t(a)")
	slow.Must("CREATE TRIGGER tr BEFORE INSERT ON t BEGIN SELECT count(*) FROM (WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 30000) SELECT n FROM c); END")
	loads(t, slow, "a\n"+strings.Repeat("1\n", 5000), "table=t", "mode=append").Fails(http.StatusRequestTimeout, "statement_timeout")
	if got := slow.One("SELECT count(*) FROM t"); got != "0" {
		t.Errorf("%s rows", got)
	}
}

func TestEmptyDatabaseGoesRound(t *testing.T) {
	row(t, "DP-T-3")
	d := db(t)
	d.Must("SELECT 1")
	_, text := download(t, d, "export")
	c := d.Client.DB(unused())
	imports(t, c, text).OK()
	if got := c.One("SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"); got != "0" { // SQLite's own and the server's begin so
		t.Errorf("%s objects", got)
	}
}

// At a stop logs are copied back, whatever still ran, and an import under way is told.
func TestTerminationCopiesLogsBack(t *testing.T) {
	row(t, "DP-T-4")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_STATEMENT_TIMEOUT=60s", "PERSQLD_PARK_TIMEOUT=60s"}})
	c := s.Client(t, harness.Token)
	for i := range 8 {
		d := c.DB(fmt.Sprintf("crowd%d", i))
		d.Must("CREATE TABLE t(a)")
		d.Must("INSERT INTO t VALUES(1)")
	}
	crowd(t, c, 8, endless)
	d := c.DB("imported")
	d.Must("CREATE TABLE t(a)")
	told := make(chan int, 1)
	go func() {
		told <- c.Send(t.Context(), d.Path("import"), harness.Raw("CREATE TABLE x AS "+endless+";"))
	}()
	eventually(t, 10*time.Second, func() bool { return d.Query("INSERT INTO t VALUES(1)").Status == http.StatusServiceUnavailable })
	s.Signal(t, syscall.SIGTERM)
	if code := s.Wait(t, 11*time.Second); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if status := <-told; status != http.StatusServiceUnavailable {
		t.Errorf("the import was told %d", status)
	}
	logs, err := filepath.Glob(filepath.Join(s.Data, "db", "*", "*-wal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, log := range logs {
		if fi, err := os.Stat(log); err == nil && fi.Size() > 0 {
			t.Errorf("%s still has %d bytes", filepath.Base(log), fi.Size())
		}
	}
}

// One statement of an import is bounded by what there is of memory; a value's limit fits in any case.
func TestLongStatementOfAnImport(t *testing.T) {
	row(t, "DP-T-7")
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MEMORY=64MiB"}})
	d := s.Client(t, harness.Token).DB("long")
	d.Must("CREATE TABLE t(a)")
	long := append([]byte("INSERT INTO t VALUES('"), bytes.Repeat([]byte("x"), 25_000_000)...)
	imports(t, d, append(long, "');"...)).Fails(http.StatusRequestEntityTooLarge, "import_too_large")
	fits := append([]byte("INSERT INTO t VALUES('"), bytes.Repeat([]byte("x"), 5_000_000)...)
	imports(t, d, append(fits, "');"...)).OK()
}

// Rows that are taken out and in are counted like those of statements.
func TestTransfersAreMetered(t *testing.T) {
	row(t, "DP-T-3")
	s := harness.Start(t, binary, harness.Options{})
	c := s.Client(t, harness.Token)
	metric := func(name string) (n float64) {
		t.Helper()
		a, err := c.Try("GET", "/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(string(a.Raw), "\n") {
			if rest, ok := strings.CutPrefix(line, name+" "); ok {
				if _, err := fmt.Sscan(rest, &n); err != nil {
					t.Fatal(err)
				}
			}
		}
		return n
	}
	d := c.DB("metered")
	made := 3.0
	if strings.Contains(string(c.Get("/version").Raw), `"rowMeter":"exact"`) {
		made = 5 // the table is a row, too, which is written twice
	}
	imports(t, d, []byte("CREATE TABLE t(a); INSERT INTO t VALUES(1),(2),(3);")).OK().Is("data.rowsWritten", fmt.Sprint(made))
	if got := metric("persqld_rows_written_total"); got != made {
		t.Errorf("%v rows written after an import of 3", got)
	}
	before := metric("persqld_rows_read_total")
	_, file := download(t, d, "export?format=sqlite")
	download(t, d, "export")
	if got := metric("persqld_rows_read_total") - before; got < 3 {
		t.Errorf("%v rows read by an export of 3", got)
	}
	imports(t, c.DB("other"), file).OK().Is("data.rowsWritten", "3")
	loads(t, d, "a\n4\n5\n", "table=t", "mode=append").OK()
	if got := metric("persqld_rows_written_total"); got != made+5 {
		t.Errorf("%v rows written, want %v", got, made+5)
	}
}
