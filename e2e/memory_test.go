package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// residentMB is the memory of a server that the system counts, in MB.
func residentMB(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(rest, "kB")))
			if err != nil {
				t.Fatal(err)
			}
			return kb / 1000
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// bombs are statements that want more memory than there is.
var bombs = []string{
	"SELECT sum(length(x)) FROM (SELECT zeroblob(15000000) x UNION ALL SELECT randomblob(15000000) UNION ALL SELECT printf('%.*c', 15000000, 'a') ORDER BY 1)",
	"WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 3000000) SELECT length(group_concat(n || 'xxxxxxxxxxxxxxxxxxxxxxxxxxx')) FROM c",
	"WITH RECURSIVE c(s) AS (VALUES('x') UNION ALL SELECT s || s FROM c WHERE length(s) < 10000000) SELECT max(length(s)) FROM (SELECT s FROM c ORDER BY s DESC)",
	"SELECT count(*) FROM (SELECT a.x, b.x FROM (SELECT randomblob(10000000) x) a, (SELECT randomblob(10000000) x) b, (SELECT randomblob(10000000) y) c ORDER BY 1)",
	"WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 200) SELECT json_group_array(hex(randomblob(1000000))) FROM c",
	nested(12),
}

// nested is a statement of some hundred bytes that grows eightfold with each of its levels while it is compiled.
func nested(levels int) string {
	var b strings.Builder
	b.WriteString("WITH t0(a) AS NOT MATERIALIZED (SELECT 1)")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&b, ", t%d(a) AS NOT MATERIALIZED (SELECT x1.a FROM t%d x1, t%d x2, t%d x3, t%d x4, t%d x5, t%d x6, t%d x7, t%d x8)", i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	fmt.Fprintf(&b, " SELECT count(*) FROM t%d", levels)
	return b.String()
}

// With little memory a quiet tenant is served beside whatever wants all of it, and the process stays small.
func TestMemoryBombs(t *testing.T) {
	row(t, "DP-F-3", "DP-F-4")
	if harness.Race() {
		t.Log("the race detector takes memory of its own: only that it lives is looked at")
	}
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_MEMORY=256MB", "PERSQLD_STATEMENT_TIMEOUT=5s", "PERSQLD_PARK_TIMEOUT=5s"}})
	c := s.Client(t, harness.Token)
	d := c.DB("quiet")
	d.Must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	d.Must("INSERT INTO t VALUES(1, 'x')")
	statuses := map[int]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stopped := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return statuses[http.StatusRequestEntityTooLarge] > 0
	}
	// For six seconds, and on a busy machine until one was too large.
	all.Go(func() {
		select {
		case <-time.After(6 * time.Second):
		case <-ctx.Done():
		}
		eventually(t, 40*time.Second, stopped)
		cancel()
	})
	for i := range 24 {
		all.Go(func() {
			for n := 0; n < 3 || ctx.Err() == nil && !stopped(); n++ {
				status := c.Send(ctx, fmt.Sprintf("/v1/db/default/bomb%d/query", i), harness.Body(bombs[(i+n)%len(bombs)]))
				mu.Lock()
				statuses[status]++
				mu.Unlock()
				switch status {
				case 0, http.StatusOK, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable, http.StatusRequestTimeout,
					http.StatusTooManyRequests: // while one that was over its limit is being undone
				default:
					t.Errorf("status %d: %s", status, bombs[(i+n)%len(bombs)])
				}
			}
		})
	}
	// 64 results of 30 MB that nobody reads.
	big := harness.Body("WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 3000) SELECT hex(zeroblob(5000)) FROM c")
	for i := range 64 {
		all.Go(func() { unread(ctx, s.Addr, fmt.Sprintf("/v1/db/default/unread%d/query", i%8), harness.Text(big)) })
	}
	// Bodies without an end, and connections that say next to nothing.
	for range 16 {
		all.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/v1/db/default/endless/query", endlessBody{})
			if err != nil {
				return
			}
			req.Header.Set("Authorization", "Bearer "+harness.Token)
			if res, err := http.DefaultClient.Do(req); err == nil {
				res.Body.Close()
			}
		})
	}
	var idle []net.Conn
	for i := range 2000 {
		conn, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
		if i%2 == 0 {
			fmt.Fprintf(conn, "POST /v1/db/default/slow/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 9000000\r\n\r\n{", harness.Token)
		}
	}
	defer func() {
		for _, conn := range idle {
			conn.Close()
		}
	}()
	served, refused := 0, 0
	for ctx.Err() == nil {
		a := d.Query("SELECT b FROM t WHERE a = 1")
		switch a.Status {
		case http.StatusOK:
			served++
		case http.StatusServiceUnavailable:
			refused++
		default:
			t.Fatalf("the quiet tenant got %d: %s", a.Status, a.Raw)
		}
	}
	all.Wait()
	rss := residentMB(t, s.PID())
	t.Logf("bombs ended with %v; the quiet tenant was served %d times, refused %d times; %d MB resident", statuses, served, refused, rss)
	if served < 20*refused || served == 0 {
		t.Errorf("the quiet tenant was served %d times, refused %d times", served, refused)
	}
	if rss > 700 && !harness.Race() {
		t.Errorf("%d MB resident, want less than 700", rss)
	}
	if statuses[http.StatusRequestEntityTooLarge] == 0 {
		t.Error("no statement was stopped for its memory")
	}
	d.Must("INSERT INTO t VALUES(2, 'y')")
}

// unread asks and does not read the answer.
func unread(ctx context.Context, addr, path, body string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", path, harness.Token, len(body), body)
	<-ctx.Done()
}

type endlessBody struct{}

func (endlessBody) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

func (endlessBody) Close() error { return nil }

var _ io.ReadCloser = endlessBody{}
