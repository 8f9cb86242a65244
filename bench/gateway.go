package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// gatewayTool is the S3 server below the module's folder, which scripts/test-setup builds.
	gatewayTool = ".cache/tools/versitygw-v1.8.0/versitygw"

	gatewayBucket = "bench"
	gatewayRegion = "us-east-1"
	gatewayAccess = "AKIDOFTHEBENCHSERVER"
	gatewaySecret = "secretOfTheBenchServerWhichIsNone"
)

// gateway is a real S3 server. It stands for another machine: it gets what processor time nobody else wants, and no disk of ours. Like S3 it keeps connections.
type gateway struct {
	endpoint string
	dir      string
	cmd      *exec.Cmd
	exited   chan struct{}
}

var errNoGateway = errors.New("the S3 server is missing, and CI is set: nothing may be left out; scripts/test-setup builds it")

// startGateway starts an S3 server. Where it isn't there, missing says so; where CI is set that is an error.
func startGateway(ctx context.Context, root string) (_ *gateway, missing string, err error) {
	program := filepath.Join(root, filepath.FromSlash(gatewayTool))
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("CI") != "" {
			return nil, "", fmt.Errorf("%s: %w", gatewayTool, errNoGateway)
		}
		return nil, gatewayTool + " is missing; scripts/test-setup builds it", nil
	}
	// In memory: what another machine's disk does is not measured.
	dir, err := os.MkdirTemp(memoryFolder(), "persqld-bench-s3-")
	if err != nil {
		return nil, "", fmt.Errorf("make folder of the S3 server: %w", err)
	}
	g := &gateway{dir: dir, exited: make(chan struct{})}
	objects, sidecar := filepath.Join(dir, "root"), filepath.Join(dir, "sidecar")
	address, err := freeAddress()
	for _, d := range []string{filepath.Join(objects, gatewayBucket), sidecar} {
		err = errors.Join(err, os.MkdirAll(d, 0o700))
	}
	if err != nil {
		return nil, "", errors.Join(err, os.RemoveAll(dir))
	}
	g.endpoint = "http://" + address
	var said bytes.Buffer
	g.cmd = exec.CommandContext(ctx, "nice", "-n", "19", program, "--access", gatewayAccess, "--secret", gatewaySecret, "--region", gatewayRegion,
		"--port", address, "--health", "/health", "--quiet", "--keep-alive", "posix", "--sidecar", sidecar, objects)
	g.cmd.Stdout, g.cmd.Stderr = io.Discard, &said
	if err := g.cmd.Start(); err != nil {
		return nil, "", errors.Join(fmt.Errorf("start the S3 server: %w", err), os.RemoveAll(dir))
	}
	go func() {
		defer close(g.exited)
		_ = g.cmd.Wait() // it is killed
	}()
	if err := g.waitHealthy(ctx); err != nil {
		g.stop()
		return nil, "", fmt.Errorf("%w\n%s", err, said.String())
	}
	return g, "", nil
}

// memoryFolder is a folder in memory, where a machine has one; else "", which is the system's for temporary files.
func memoryFolder() string {
	const dir = "/dev/shm"
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return ""
	}
	return dir
}

func (g *gateway) waitHealthy(ctx context.Context) error {
	until := time.Now().Add(readyTimeout)
	for time.Now().Before(until) {
		if _, err := fetch(ctx, g.endpoint+"/health"); err == nil {
			return nil
		}
		select {
		case <-g.exited:
			return fmt.Errorf("start the S3 server: %w: it ended", errNotReady)
		default:
		}
		if err := wait(ctx, 20*time.Millisecond, nil); err != nil {
			return err
		}
	}
	return fmt.Errorf("start the S3 server: %w within %s", errNotReady, readyTimeout)
}

func (g *gateway) stop() {
	_ = g.cmd.Process.Kill() // one that is gone already needs no signal
	<-g.exited
	_ = os.RemoveAll(g.dir)
}

// url names a replica in the server.
func (g *gateway) url(prefix string) string {
	q := url.Values{"endpoint": {g.endpoint}, "region": {gatewayRegion}}
	return "s3://" + gatewayBucket + "/" + prefix + "?" + q.Encode()
}

// env are the credentials of who uses the server. Nothing of the machine's own gets in their way.
func (g *gateway) env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + gatewayAccess, "AWS_SECRET_ACCESS_KEY=" + gatewaySecret, "AWS_REGION=" + gatewayRegion, "AWS_SESSION_TOKEN=",
		"AWS_PROFILE=", "AWS_ENDPOINT_URL=", "AWS_ENDPOINT_URL_S3=", "AWS_EC2_METADATA_DISABLED=true"}
}

// fetch returns what a GET answers with 200.
func fetch(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: GET %s: %d", errRefused, address, res.StatusCode)
	}
	return io.ReadAll(res.Body)
}

// scrape returns a server's metrics that have no labels.
func scrape(ctx context.Context, s *server) (map[string]float64, error) {
	b, err := fetch(ctx, "http://"+s.address+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return parseMetrics(b), nil
}

// parseMetrics reads the text format of Prometheus; series with labels and what it doesn't understand are left out.
func parseMetrics(b []byte) map[string]float64 {
	m := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || strings.HasPrefix(name, "#") || strings.Contains(name, "{") {
			continue
		}
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			m[name] = f
		}
	}
	return m
}
