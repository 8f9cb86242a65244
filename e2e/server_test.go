package e2e_test

import (
	"encoding/json"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
	"github.com/persqld/persqld/internal/sqlite"
)

func TestHealthAndVersion(t *testing.T) {
	c := client(t).As("")
	for _, path := range []string{"/healthz", "/readyz"} {
		if a := c.Get(path); a.Status != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.Status, a.Raw)
		}
	}
	var v struct{ Version, SQLiteVersion, RowMeter string }
	a := c.Get("/version")
	if err := json.Unmarshal(a.Raw, &v); err != nil || v.Version == "" {
		t.Errorf("/version: %s: %v", a.Raw, err)
	}
	if v.RowMeter != sqlite.RowMeter() { // this test is built with the same flags as the server
		t.Errorf("the server's row meter is %q, want %q", v.RowMeter, sqlite.RowMeter())
	}
	if !regexp.MustCompile(`^3\.(5[2-9]|[6-9]\d)\.\d+$|^3\.51\.([3-9]|\d\d)$`).MatchString(v.SQLiteVersion) {
		t.Errorf("sqliteVersion %q is older than 3.51.3", v.SQLiteVersion)
	}
	out, _, code := sharedServer(t).CLI(t, "version", "--json")
	if code != 0 || !strings.Contains(out, v.SQLiteVersion) || !strings.Contains(out, v.RowMeter) {
		t.Errorf("persqld version: %d %s", code, out)
	}
}

// metricNames are those that the contract of the server names and that this version counts.
var metricNames = []string{
	"persqld_http_requests_total", "persqld_http_request_duration_seconds", "persqld_queue_wait_seconds", "persqld_engine_seconds",
	"persqld_group_size", "persqld_fsyncs_total", "persqld_open_databases", "persqld_requests_total", "persqld_rows_read_total", "persqld_rows_written_total",
}

func TestMetrics(t *testing.T) {
	d := db(t)
	d.Must("CREATE TABLE metered(a)")
	d.Must("INSERT INTO metered VALUES(1)")
	d.Must("SELECT * FROM metered")
	d.Get("/v1/none")
	text := string(d.As("").Get("/metrics").Raw)
	for _, name := range metricNames {
		if !regexp.MustCompile(`(?m)^` + name + `(_bucket|_sum|_count)?[ {]`).MatchString(text) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	if !regexp.MustCompile(`persqld_http_requests_total\{[^}]*route="[^"]*query"[^}]*\}`).MatchString(text) || !strings.Contains(text, `status="404"`) {
		t.Error("persqld_http_requests_total lacks its labels")
	}
	if strings.Contains(text, d.Slug+`"`) || strings.Contains(text, "/"+d.Slug+"/") || strings.Contains(text, "/v1/none") {
		t.Errorf("/metrics has labels of a client's making")
	}
}

func TestAdminListener(t *testing.T) {
	admin := harness.FreeAddr(t)
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_ADMIN_LISTEN=" + admin}})
	s.Client(t, harness.Token).DB("x").Must("SELECT 1")
	private := harness.NewClient(t, "http://"+admin, "", s.Data).Apart()
	if a := private.Get("/metrics"); a.Status != http.StatusOK || !strings.Contains(string(a.Raw), "persqld_http_requests_total") {
		t.Errorf("/metrics of the admin listener: %d", a.Status)
	}
	if a := private.Get("/debug/pprof/"); a.Status != http.StatusOK {
		t.Errorf("pprof of the admin listener: %d", a.Status)
	}
	if a := private.Target(http.MethodGet, "/v1/me", ""); a.Status != http.StatusNotFound {
		t.Errorf("/v1/me of the admin listener: %d", a.Status)
	}
	public := s.Client(t, "")
	for _, path := range []string{"/metrics", "/debug/pprof/"} {
		if a := public.Get(path); a.Status != http.StatusNotFound {
			t.Errorf("%s of the public listener: %d", path, a.Status)
		}
	}
	if a := client(t).As("").Get("/debug/pprof/"); a.Status != http.StatusNotFound {
		t.Errorf("pprof without an admin listener: %d", a.Status)
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	s := harness.Start(t, binary, harness.Options{})
	second, err := harness.Run(binary, harness.Options{Data: s.Data})
	if err == nil {
		second.Kill()
		t.Fatal("two servers run on one data directory")
	}
	if !strings.Contains(err.Error(), "in use") {
		t.Errorf("the refusal says %v", err)
	}
	s.Client(t, harness.Token).DB("x").Must("SELECT 1")
}

func TestRestartKeepsEverything(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s := harness.Start(t, binary, harness.Options{Data: data})
	d := s.Client(t, harness.Token).DB("kept")
	d.Must("CREATE TABLE t(a)")
	insert := harness.Body("INSERT INTO t VALUES('x')")
	d.Post(d.Path("query"), insert, key("k")).OK()
	d.Do(http.MethodPut, d.Path("describe"), body{"databaseDescription": "kept too"}).OK()
	s.JSONOf(t, "namespace", "create", "more")
	id, token := newToken(t, s, "--namespace", "default")
	for _, end := range []func() int{
		func() int { return s.Stop(t) },
		func() int { s.Kill(); return 0 },
	} {
		if code := end(); code != 0 {
			t.Errorf("exit status %d", code)
		}
		s = harness.Start(t, binary, harness.Options{Data: data})
		d = s.Client(t, token).DB("kept")
		if got := d.One("SELECT group_concat(a) FROM t"); got != "x" {
			t.Errorf("after the restart: %q", got)
		}
		admin := s.Client(t, harness.Token).DB("kept")
		if !replayed(admin.Post(d.Path("query"), insert, key("k")).OK()) {
			t.Error("the idempotency key is forgotten")
		}
		d.Get(d.Path("describe")).OK().Is("data.databaseDescription", "kept too")
	}
	// A token is revoked on a stopped server too.
	if code := s.Stop(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if out, errs, code := s.CLI(t, "token", "revoke", id, "--json"); code != 0 {
		t.Errorf("revoke on a stopped server: %d %s%s", code, out, errs)
	}
	s = harness.Start(t, binary, harness.Options{Data: data})
	refused(t, s.Client(t, token).Get("/v1/me"), "Invalid or expired token")
}

func TestTerminationInterruptsWhatRuns(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, binary, harness.Options{})
	d := newDB(t, s.Client(t, harness.Token))
	d.Must("CREATE TABLE t(a)")
	answered := make(chan int, 1)
	go func() {
		a, err := d.Try(http.MethodPost, d.Path("query"), harness.Body(endless))
		if err != nil {
			answered <- 0
			return
		}
		answered <- a.Status
	}()
	untilBusy(t, s, d)
	begin := time.Now()
	s.Signal(t, syscall.SIGTERM)
	if code := s.Wait(t, 15*time.Second); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if took := time.Since(begin); took > slack(10*time.Second) {
		t.Errorf("the end took %v", took)
	}
	if status := <-answered; status != http.StatusServiceUnavailable && status != http.StatusRequestTimeout {
		t.Errorf("the endless statement was answered with %d, want 503 or 408", status)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, binary, harness.Options{})
	d := newDB(t, s.Client(t, harness.Token))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = d.Try(http.MethodPost, d.Path("query"), harness.Body(endless)) // it is cut off
	}()
	// Draining shows as readyz no longer answering with 200.
	s.Signal(t, syscall.SIGTERM)
	eventually(t, 5*time.Second, func() bool {
		resp, err := http.Get(s.URL + "/readyz")
		if err != nil {
			return true
		}
		defer resp.Body.Close()
		return resp.StatusCode != http.StatusOK
	})
	begin := time.Now()
	s.SignalIfRunning(syscall.SIGTERM)
	s.Wait(t, 5*time.Second)
	if took := time.Since(begin); took > slack(2*time.Second) {
		t.Errorf("the second signal took %v", took)
	}
	<-done
}

func TestFirstStart(t *testing.T) {
	curl := harness.Need(t, "curl")
	data := filepath.Join(t.TempDir(), "data")
	s := harness.Start(t, binary, harness.Options{Data: data, NoToken: true})
	var said string
	if !eventually(t, 5*time.Second, func() bool { said = s.Out() + s.Log(); return strings.Contains(said, "curl") }) {
		t.Fatalf("the first start prints no curl: %s", said)
	}
	command := curlOf(s.Out())
	if command == "" {
		command = curlOf(s.Log())
	}
	token := regexp.MustCompile(`psql_live_[A-Za-z0-9_-]+`).FindString(command)
	if token == "" {
		t.Errorf("the command has no token: %s", command)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
	cmd.Env = append(harness.Environ(), "PATH="+filepath.Dir(curl)+":/usr/bin:/bin")
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), `"success":true`) {
		t.Errorf("the printed command answers %s, %v: %s", out, err, command)
	}
	s.Client(t, token).Get("/v1/me").OK()
	if n := strings.Count(s.Log(), token); n > 0 && strings.Contains(s.Out(), token) {
		t.Errorf("the token is in the log, too")
	}
	if code := s.Stop(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s = harness.Start(t, binary, harness.Options{Data: data, NoToken: true})
	if again := s.Out() + s.Log(); strings.Contains(again, "psql_live_") {
		t.Errorf("the second start prints a token: %s", again)
	}
	s.Client(t, token).Get("/v1/me").OK()
}

// TestFirstStartFails: a first start that comes to nothing must not use up what the first start shows.
func TestFirstStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	o := harness.Options{Data: filepath.Join(t.TempDir(), "data"), NoToken: true, Env: []string{"PERSQLD_ADMIN_LISTEN=" + taken.Addr().String()}}
	if s, err := harness.Run(binary, o); err == nil {
		s.Kill()
		t.Fatal("it starts without its second listener")
	}
	o.Env = nil
	s := harness.Start(t, binary, o)
	if !eventually(t, 5*time.Second, func() bool { return strings.Contains(s.Out(), "psql_live_") && strings.Contains(s.Out(), "/invite/") }) {
		t.Errorf("the next start shows no token and no link: %s", s.Out())
	}
}

// curlOf is the first command that begins with curl in a text, with its continued lines.
func curlOf(text string) string {
	_, after, ok := strings.Cut(text, "curl ")
	if !ok {
		return ""
	}
	var command []string
	for line := range strings.Lines("curl " + after) {
		command = append(command, line)
		if !strings.HasSuffix(strings.TrimRight(line, "\n "), `\`) {
			break
		}
	}
	return strings.Join(command, "")
}

func TestSecretsAreNotLogged(t *testing.T) {
	s := harness.Start(t, binary, harness.Options{Env: []string{"PERSQLD_LOG=debug"}})
	d := newDB(t, s.Client(t, harness.Token))
	id, token := newToken(t, s, "--namespace", "default")
	d.Must("CREATE TABLE t(a UNIQUE)")
	for range 2 {
		d.Query("INSERT INTO t VALUES(?)", "parameter-of-a-client")
	}
	d.As(token).DB(d.Slug).Must("SELECT * FROM t WHERE a = ?", "parameter-of-a-client")
	d.As("psql_live_wrongTokenThatSomebodyMistyped0000000000").Get("/v1/me")
	d.As(token + "x").Get("/v1/me?token=" + token)
	d.Post(d.Path("query"), harness.Body("INSERT INTO t VALUES(1)"), key("key-of-a-client")).OK()
	d.Post(d.Path("query"), harness.Raw(`{"sql":"SELECT ?","params":[parameter-of-a-client`))
	s.JSONOf(t, "token", "revoke", id)
	s.Stop(t)
	log := s.Log() + s.Out()
	for _, secret := range []string{harness.Token, token, "parameter-of-a-client", "wrongTokenThatSomebody", harness.Token[10:], "key-of-a-client"} {
		if i := strings.Index(log, secret); i >= 0 {
			t.Errorf("the log has %s: …%s…", secret, log[max(0, i-200):min(len(log), i+100)])
		}
	}
	for line := range strings.Lines(s.Log()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of the log is no JSON: %s", line)
		}
	}
}

func TestWrongSettings(t *testing.T) {
	for env, words := range map[string][]string{
		"PERSQLD_QUEUE_DEPHT=4":         {"PERSQLD_QUEUE_DEPHT", "PERSQLD_QUEUE_DEPTH"},
		"PERSQLD_QUEUE_DEPTH=0":         {"QUEUE_DEPTH", "1000000"},
		"PERSQLD_STATEMENT_TIMEOUT=1ms": {"STATEMENT_TIMEOUT", "10ms"},
		"PERSQLD_TOKEN=short":           {"PERSQLD_TOKEN", "psql_live_"},
	} {
		s, err := harness.Run(binary, harness.Options{Data: filepath.Join(t.TempDir(), "data"), NoToken: true, Env: []string{env}})
		if err == nil {
			s.Kill()
			t.Errorf("%s: the server starts", env)
			continue
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: the refusal doesn't name %s: %v", env, w, err)
			}
		}
	}
	s, err := harness.Run(binary, harness.Options{Data: filepath.Join(t.TempDir(), "data"), Env: []string{"PERSQLD_SERVICE_HOST=10.0.0.1", "PERSQLD_PORT=tcp://10.0.0.1:8080", "PERSQLD_PORT_8080_TCP_ADDR=10.0.0.1"}})
	if err != nil {
		t.Fatalf("what Kubernetes injects stops the start: %v", err)
	}
	s.Stop(t)
}
