package e2e_test

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/persqld/persqld/e2e/harness"
)

// imageMax is what the image may weigh, in bytes.
const imageMax = 40_000_000

// dockerfile is what deploycheck reads from the Dockerfile.
type dockerfile struct {
	User, StopSignal, Base                                 string
	Env                                                    map[string]string
	Volumes, Ports, Entrypoint, Command, Healthcheck, Runs []string
	Copies                                                 []struct {
		From, To, Chown string
		Sources         []string
	}
}

// TestImage lays out the image's contents, as the Dockerfile does, and runs them as the README's command for Docker
// does: as nobody, on a read-only root, with a volume at /data.
func TestImage(t *testing.T) {
	harness.NeedContainers(t)
	harness.Need(t, "curl")
	for _, file := range []string{"/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo/UTC"} {
		if _, err := os.Stat(file); err != nil {
			harness.Lacking(t, file)
		}
	}
	var image dockerfile
	deploycheck(t, &image, "dockerfile", repository(t, "Dockerfile"))
	run := dockerRun(t)
	root := imageRoot(t)
	t.Run("tree", func(t *testing.T) { checkTree(t, root, image) })

	// What a runtime makes of a named volume at its first use: a folder with the owner and mode of the image's.
	if len(image.Volumes) != 1 || image.Volumes[0] != run.target {
		t.Fatalf("the README mounts a volume at %q, the image has %v", run.target, image.Volumes)
	}
	volume := filepath.Join(t.TempDir(), "volume")
	copyFolder(t, filepath.Join(root, run.target), volume)
	options := harness.ContainerOptions{Root: root, Volume: volume, Target: run.target, User: image.User,
		Env: []string{"TZ=Asia/Tokyo"}, Args: append(slices.Clone(image.Entrypoint), image.Command...)}
	for name, value := range image.Env {
		options.Env = append(options.Env, name+"="+value)
	}
	if !slices.Contains(image.Ports, run.port) {
		t.Errorf("the README publishes port %s, the image has %v", run.port, image.Ports)
	}

	c := harness.StartContainer(t, options)
	var command string
	if !eventually(t, 20*time.Second, func() bool { command = curlOf(c.Out()); return command != "" }) {
		t.Fatalf("the first start prints no curl: %s", c.Out())
	}
	token := regexp.MustCompile(`psql_live_[A-Za-z0-9_-]+`).FindString(command)
	if !strings.Contains(command, "http://localhost:"+run.port+"/") {
		t.Errorf("the printed command does not go to the port that the README publishes: %s", command)
	}
	if out, code := c.Shell(command); code != 0 || !strings.Contains(out, `"success":true`) || !strings.Contains(out, "42") {
		t.Fatalf("the first query, %s: exit status %d: %s", command, code, out)
	}

	t.Run("healthcheck", func(t *testing.T) {
		if len(image.Healthcheck) < 2 || image.Healthcheck[0] != "CMD" {
			t.Fatalf("the image's health check is %v; it has no shell, so it must be a list of words", image.Healthcheck)
		}
		if out, code := c.Exec(image.Healthcheck[1:]...); code != 0 {
			t.Errorf("%v: exit status %d: %s", image.Healthcheck, code, out)
		}
		if out, code := c.Exec("/persqld", "healthcheck", "--listen", ":1"); code != 1 {
			t.Errorf("asked on another port: exit status %d: %s", code, out)
		}
	})
	t.Run("subcommand", func(t *testing.T) {
		out, code := c.Exec("/persqld", "token", "create", "--namespace", "default")
		if made := regexp.MustCompile(`psql_live_[A-Za-z0-9_-]+`).FindString(out); code != 0 || made == "" || made == token {
			t.Errorf("docker exec … token create: exit status %d: %s", code, out)
		}
	})
	t.Run("privileges", func(t *testing.T) { checkPrivileges(t, c, image.User) })
	t.Run("only the volume is writable", func(t *testing.T) { checkReadOnly(t, c, root, run.target) })
	t.Run("big sort", func(t *testing.T) { checkSort(t, c, run.port, token) })
	t.Run("time zones", func(t *testing.T) {
		if got := containerSQL(t, c, run.port, token, "SELECT strftime('%H:%M', 0, 'unixepoch', 'localtime') AS t"); !strings.Contains(got, "09:00") {
			t.Errorf("with TZ=Asia/Tokyo, midnight in London is %s, want 09:00", got)
		}
	})

	containerSQL(t, c, run.port, token, "CREATE TABLE kept(a)")
	containerSQL(t, c, run.port, token, "INSERT INTO kept VALUES('before the stop')")
	if code := c.Stop(signalOf(t, image.StopSignal), 15*time.Second); code != 0 {
		t.Errorf("docker stop: exit status %d", code)
	}
	c = harness.StartContainer(t, options)
	untilHealthy(t, c, image)
	if strings.Contains(c.Out(), "psql_live_") {
		t.Error("the second start prints a token")
	}
	containerSQL(t, c, run.port, token, "INSERT INTO kept VALUES('before the kill')")
	c.Kill()
	c = harness.StartContainer(t, options)
	untilHealthy(t, c, image)
	if got := containerSQL(t, c, run.port, token, "SELECT group_concat(a) AS a FROM kept"); !strings.Contains(got, "before the stop,before the kill") {
		t.Errorf("after a stop and a kill the volume has %s", got)
	}
}

func repository(t testing.TB, elem ...string) string {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(append([]string{root}, elem...)...)
}

// imageRoot has the script lay out the tree in a new folder.
func imageRoot(t *testing.T) string {
	t.Helper()
	// Reachable for everybody, unlike the test's own folder: the process inside is nobody.
	root := filepath.Join(t.TempDir(), "image")
	cmd := exec.CommandContext(t.Context(), repository(t, "scripts", "image-root"), root)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("image-root: %v\n%s", err, out)
	}
	return root
}

// dockerLine is what the README has one type.
type dockerLine struct{ target, port string }

var dockerBlock = regexp.MustCompile("(?ms)^```sh docker\n(.*?)^```")

// dockerRun reads the README's docker run. It must be one that a read-only root is good enough for.
func dockerRun(t *testing.T) (line dockerLine) {
	t.Helper()
	text, err := os.ReadFile(repository(t, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := dockerBlock.FindStringSubmatch(string(text))
	if block == nil {
		t.Fatal("the README has no block marked ```sh docker")
	}
	_, after, ok := strings.Cut(block[1], "docker run ")
	if !ok {
		t.Fatalf("the README's block for Docker has no docker run:\n%s", block[1])
	}
	command, _, _ := strings.Cut(after, "\n")
	words := strings.Fields(command)
	readOnly, image := false, ""
	for i := 0; i < len(words); i++ {
		switch word := words[i]; {
		case word == "-d":
		case word == "--read-only":
			readOnly = true
		case word == "-p" || word == "-v" || word == "--name":
			i++
			host, inside, _ := strings.Cut(words[i], ":")
			switch word {
			case "-p":
				if line.port = inside; host != inside {
					t.Errorf("the README publishes port %s as %s; the command that the first start prints would not work", inside, host)
				}
			case "-v":
				line.target = inside
			}
		case image == "" && !strings.HasPrefix(word, "-"):
			image = word
		default:
			t.Fatalf("the README's docker run has %q, which this test does not understand", word)
		}
	}
	if !readOnly || line.target == "" || line.port == "" || image == "" {
		t.Fatalf("the README's docker run %s: read-only %v, volume at %q, port %q, image %q", command, readOnly, line.target, line.port, image)
	}
	return line
}

// checkTree looks at the tree that the script laid out, and whether the Dockerfile copies all of it.
func checkTree(t *testing.T, root string, image dockerfile) {
	var size int64
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		size += info.Size()
		name := strings.TrimPrefix(path, root)
		owner := info.Sys().(*syscall.Stat_t)
		switch {
		case name == "/data":
			if got := fmt.Sprintf("%d:%d", owner.Uid, owner.Gid); got != image.User || info.Mode().Perm() != 0o700 {
				t.Errorf("/data is of %s with mode %v, want %s and 0700", got, info.Mode().Perm(), image.User)
			}
		case owner.Uid != 0 || owner.Gid != 0:
			t.Errorf("%s is of %d:%d", name, owner.Uid, owner.Gid)
		case entry.Type() == fs.ModeSymlink:
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s leads nowhere", name)
			}
		case info.Mode().Perm()&0o022 != 0:
			t.Errorf("%s has mode %v", name, info.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if size > imageMax {
		t.Errorf("the image has %d bytes, more than %d", size, imageMax)
	}
	t.Logf("the image has %.1f MB", float64(size)/1e6)

	// The first of the places where crypto/x509 looks for roots, and time for zones.
	roots, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(roots) {
		t.Errorf("CA roots: %v", err)
	}
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "UTC"} {
		text, err := os.ReadFile(filepath.Join(root, "usr/share/zoneinfo", zone))
		if err == nil {
			_, err = time.LoadLocationFromTZData(zone, text)
		}
		if err != nil {
			t.Errorf("time zone %s: %v", zone, err)
		}
	}

	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	copies := map[string]string{} // from the tree to the image
	for _, c := range image.Copies {
		for _, source := range c.Sources {
			copies[source] = c.To
		}
		if want := map[bool]string{true: image.User}[c.To == "/data"]; c.Chown != want {
			t.Errorf("the Dockerfile gives %s to %q, want %q", c.To, c.Chown, want)
		}
	}
	for _, entry := range entries {
		if to := copies["/image/"+entry.Name()]; to != "/"+entry.Name() {
			t.Errorf("the Dockerfile copies /image/%s to %q", entry.Name(), to)
		}
	}
	if len(copies) != len(entries) {
		t.Errorf("the Dockerfile copies %v, the script makes %v", copies, entries)
	}
	if image.Base != "scratch" || !slices.ContainsFunc(image.Runs, func(r string) bool { return strings.HasSuffix(r, "scripts/image-root /image") }) {
		t.Errorf("the image is of %s, its stages run %q; want scratch, and what scripts/image-root makes in /image", image.Base, image.Runs)
	}
}

func checkPrivileges(t *testing.T, c *harness.Container, user string) {
	status, err := os.ReadFile(c.Proc("status"))
	if err != nil {
		t.Fatal(err)
	}
	uid, gid, _ := strings.Cut(user, ":")
	for field, want := range map[string]string{
		"Uid": strings.Repeat(uid+" ", 4), "Gid": strings.Repeat(gid+" ", 4), "Groups": "",
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "NoNewPrivs": "1",
	} {
		_, after, _ := strings.Cut(string(status), "\n"+field+":")
		got, _, _ := strings.Cut(after, "\n")
		if got := strings.Join(strings.Fields(got), " "); got != strings.TrimSpace(want) {
			t.Errorf("%s is %q, want %q", field, got, strings.TrimSpace(want))
		}
	}
}

// checkReadOnly tries to write into every folder of the container, as root even, and reads its mounts.
func checkReadOnly(t *testing.T, c *harness.Container, root, volume string) {
	tried := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, root)
		if name == volume {
			return fs.SkipDir
		}
		tried++
		if err := os.WriteFile(c.Proc("root", name, "probe"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("a write to %s/: %v, want a read-only file system", name, err)
		}
		return nil
	})
	if err != nil || tried < 5 {
		t.Errorf("%d folders tried: %v", tried, err)
	}
	mounts, err := os.ReadFile(c.Proc("mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for line := range strings.Lines(string(mounts)) {
		field := strings.Fields(line)
		access, _, _ := strings.Cut(field[5], ",")
		seen = append(seen, field[4]+" "+access)
	}
	if want := []string{"/ ro", volume + " rw"}; !slices.Equal(seen, want) {
		t.Errorf("the process sees the mounts %q, want %q", seen, want)
	}
}

// temporaryFile is an open file without a name in the data directory, by its path in the container or outside.
var temporaryFile = regexp.MustCompile(`/(data|volume)/tmp/[^/]+ \(deleted\)$`)

// checkSort sorts 60 MB, and sees SQLite's temporary file in the data directory meanwhile.
func checkSort(t *testing.T, c *harness.Container, port, token string) {
	const sql = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
		SELECT count(*) AS n, sum(length(v)) AS bytes FROM (SELECT hex(randomblob(150)) AS v FROM n ORDER BY v LIMIT -1)`
	answer := make(chan string, 1)
	go func() {
		out, _ := c.Shell(curlTo(port, token, sql))
		answer <- out
	}()
	spilled := false
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case got := <-answer:
			if !strings.Contains(got, "200000,60000000") {
				t.Errorf("the sort answers %s", got)
			}
			if !spilled {
				t.Error("no temporary file was seen in /data/tmp: the sort was too small to prove anything")
			}
			return
		case <-tick.C:
			files, _ := os.ReadDir(c.Proc("fd"))
			for _, file := range files {
				if to, err := os.Readlink(c.Proc("fd", file.Name())); err == nil && temporaryFile.MatchString(to) {
					spilled = true
				}
			}
		}
	}
}

func untilHealthy(t *testing.T, c *harness.Container, image dockerfile) {
	t.Helper()
	var said string
	if !eventually(t, 20*time.Second, func() bool {
		out, code := c.Exec(image.Healthcheck[1:]...)
		said = out
		return code == 0
	}) {
		t.Fatalf("the container does not become healthy: %s", said)
	}
}

func curlTo(port, token, sql string) string {
	request, err := json.Marshal(map[string]string{"sql": sql})
	if err != nil {
		panic(err) // a string is always JSON
	}
	return fmt.Sprintf("curl -sS http://localhost:%s/v1/db/default/image/query -H 'Authorization: Bearer %s' -d '%s'",
		port, token, strings.ReplaceAll(string(request), "'", `'\''`))
}

// containerSQL runs a statement that must succeed and returns the answer.
func containerSQL(t *testing.T, c *harness.Container, port, token, sql string) string {
	t.Helper()
	out, code := c.Shell(curlTo(port, token, sql))
	if code != 0 || !strings.Contains(out, `"success":true`) {
		t.Errorf("%s: exit status %d: %s", sql, code, out)
	}
	return out
}

func signalOf(t *testing.T, name string) syscall.Signal {
	t.Helper()
	if name != "SIGTERM" {
		t.Fatalf("the image is stopped by %q, want SIGTERM", name)
	}
	return syscall.SIGTERM
}

// copyFolder copies an empty folder with its owner and mode.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if err := errors.Join(os.Mkdir(to, info.Mode().Perm()), os.Chown(to, int(owner.Uid), int(owner.Gid))); err != nil {
		t.Fatal(err)
	}
}
