package e2e_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/persqld/persqld/e2e/harness"
)

// stopLimit is what docs/operations.md promises: the server ends within it.
const stopLimit = 10 * time.Second

// checker is internal/tools/deploycheck, a module of its own, built at first use.
var checker struct {
	sync.Once
	out []byte
	err error
}

// unreachable is what Go says where the module proxy can't be reached.
var unreachable = regexp.MustCompile(`dial tcp|no such host|i/o timeout|TLS handshake|connection refused|proxyconnect|Forbidden|Bad Gateway|Service Unavailable|module lookup disabled|toolchain not available`)

// deploycheck runs a command of the checker and decodes what it prints.
func deploycheck(t testing.TB, result any, args ...string) {
	t.Helper()
	bin := filepath.Join(shared.dir, "deploycheck")
	checker.Do(func() {
		cmd := exec.Command("go", "build", "-o", bin, ".")
		cmd.Dir = repository(t, "internal", "tools", "deploycheck")
		cmd.Env = append(harness.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		checker.out, checker.err = cmd.CombinedOutput()
	})
	if checker.err != nil {
		if unreachable.Match(checker.out) {
			t.Logf("build deploycheck: %s", checker.out)
			harness.Lacking(t, "internal/tools/deploycheck (its modules can't be fetched)")
		}
		t.Fatalf("build deploycheck: %v\n%s", checker.err, checker.out)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), result); err != nil {
		t.Fatalf("deploycheck %v printed %s: %v", args, out.String(), err)
	}
}

// TestDashboardsAskForWhatIsMeasured holds every metric and label of the dashboard and the alerts against a scrape.
func TestDashboardsAskForWhatIsMeasured(t *testing.T) {
	var queries []struct {
		Where, Expr, Metric string
		Labels              []string
	}
	dashboard, alerts := repository(t, "deploy", "grafana", "persqld.json"), repository(t, "deploy", "prometheus", "alerts.yaml")
	deploycheck(t, &queries, "queries", dashboard, alerts)
	if len(queries) < 40 {
		t.Errorf("only %d queries found", len(queries))
	}
	d := db(t)
	d.Must("CREATE TABLE watched(a)")
	d.Must("INSERT INTO watched VALUES(1)")
	measured := scrape(string(d.As("").Get("/metrics").Raw))
	if len(measured) < 20 {
		t.Fatalf("the scrape has only %d metrics", len(measured))
	}
	given := []string{"job", "instance"} // by Prometheus
	for _, q := range queries {
		if q.Metric == "up" { // by Prometheus
			continue
		}
		labels, ok := measured[q.Metric]
		if !ok {
			t.Errorf("%s: %s is in no scrape (%s)", q.Where, q.Metric, q.Expr)
			continue
		}
		for _, label := range q.Labels {
			if !slices.Contains(labels, label) && !slices.Contains(given, label) {
				t.Errorf("%s: %s has no label %s, only %v (%s)", q.Where, q.Metric, label, labels, q.Expr)
			}
		}
	}
}

var (
	sample    = regexp.MustCompile(`(?m)^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	labelName = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\]|\\.)*"`)
)

// scrape is the metrics of Prometheus' text format with the names of their labels.
func scrape(text string) map[string][]string {
	all := map[string][]string{}
	for _, line := range sample.FindAllStringSubmatch(text, -1) {
		names := []string{}
		for _, label := range labelName.FindAllStringSubmatch(line[2], -1) {
			names = append(names, label[1])
		}
		all[line[1]] = names
	}
	return all
}

func TestKubernetesManifests(t *testing.T) {
	file := repository(t, "deploy", "kubernetes", "persqld.yaml")
	schemas, _ := filepath.Glob(repository(t, ".cache", "kubernetes-schemas", "kubernetes_validate-*.whl"))
	if len(schemas) != 1 {
		harness.Lacking(t, "the JSON schemas of Kubernetes (PyPI's kubernetes-validate; see scripts/test-setup)")
	}
	var valid []struct{ Kind, Name string }
	deploycheck(t, &valid, "manifests", schemas[0], file)
	if len(valid) != 3 {
		t.Errorf("valid are %v, want two services and a stateful set", valid)
	}

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	type probe struct {
		HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
	}
	var set struct {
		Kind string
		Spec struct {
			Replicas int
			Template struct {
				Spec struct {
					TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
					SecurityContext               struct {
						RunAsUser int `yaml:"runAsUser"`
						FSGroup   int `yaml:"fsGroup"`
					} `yaml:"securityContext"`
					Containers []struct {
						Args            []string
						Env             []struct{ Name, Value string }
						StartupProbe    probe `yaml:"startupProbe"`
						LivenessProbe   probe `yaml:"livenessProbe"`
						ReadinessProbe  probe `yaml:"readinessProbe"`
						SecurityContext struct {
							ReadOnly bool `yaml:"readOnlyRootFilesystem"`
						} `yaml:"securityContext"`
						VolumeMounts []struct {
							MountPath string `yaml:"mountPath"`
						} `yaml:"volumeMounts"`
					}
				}
			}
		}
	}
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); set.Kind != "StatefulSet"; {
		if err := decoder.Decode(&set); err != nil {
			t.Fatalf("find the stateful set: %v", err)
		}
	}
	var image dockerfile
	deploycheck(t, &image, "dockerfile", repository(t, "Dockerfile"))
	pod := set.Spec.Template.Spec
	if set.Spec.Replicas != 1 || len(pod.Containers) != 1 {
		t.Fatalf("%d replicas of %d containers; a data directory has one process", set.Spec.Replicas, len(pod.Containers))
	}
	if got := time.Duration(pod.TerminationGracePeriodSeconds) * time.Second; got <= stopLimit {
		t.Errorf("killed after %v, but the server may take %v", got, stopLimit)
	}
	user, _, _ := strings.Cut(image.User, ":")
	if got := pod.SecurityContext; yamlText(t, got.RunAsUser) != user || yamlText(t, got.FSGroup) != user {
		t.Errorf("runs as %+v, the image as %s", got, image.User)
	}
	container := pod.Containers[0]
	if !container.SecurityContext.ReadOnly || len(container.VolumeMounts) != 1 || container.VolumeMounts[0].MountPath != image.Volumes[0] {
		t.Errorf("read-only %v, volumes %v, want one at %v", container.SecurityContext.ReadOnly, container.VolumeMounts, image.Volumes)
	}
	var environ []string
	for _, variable := range container.Env {
		environ = append(environ, variable.Name+"="+variable.Value)
	}
	serves(t, environ)
	c := client(t).As("")
	for _, p := range []probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
		if a := c.Get(p.HTTPGet.Path); p.HTTPGet.Port != "http" || a.Status != 200 {
			t.Errorf("a probe asks %+v: %d", p.HTTPGet, a.Status)
		}
	}
}

func yamlText(t *testing.T, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// serves starts the binary with the settings of a file in deploy/, at ports of the harness' own.
func serves(t *testing.T, environ []string) {
	t.Helper()
	var kept []string
	for _, pair := range environ {
		switch name, value, _ := strings.Cut(pair, "="); name {
		case "PERSQLD_ADMIN_LISTEN":
			if value != ":9090" {
				t.Errorf("metrics are at %s; deploy/prometheus scrapes port 9090", value)
			}
			kept = append(kept, name+"=127.0.0.1:0")
		case "PERSQLD_DATA", "PERSQLD_LISTEN":
		default:
			kept = append(kept, pair)
		}
	}
	s := harness.Start(t, binary, harness.Options{Env: append(kept, "PERSQLD_TOKEN="+harness.Token)})
	s.Client(t, harness.Token).Get("/v1/me").OK()
}

func TestComposeFile(t *testing.T) {
	var project struct {
		Services map[string]struct {
			Build           struct{ Context string }
			Environment     map[string]string
			ReadOnly        bool   `json:"read_only"`
			StopGracePeriod string `json:"stop_grace_period"`
			Volumes         []struct{ Type, Target string }
			Ports           []struct {
				Target    int
				Published string
			}
		}
	}
	var image dockerfile
	deploycheck(t, &image, "dockerfile", repository(t, "Dockerfile"))
	deploycheck(t, &project, "compose", repository(t, "deploy", "compose.yaml"))
	service, ok := project.Services["persqld"]
	if !ok || len(project.Services) != 1 {
		t.Fatalf("services %v, want persqld alone", project.Services)
	}
	if service.Build.Context != repository(t) || !service.ReadOnly {
		t.Errorf("built in %s, read-only %v", service.Build.Context, service.ReadOnly)
	}
	if grace, err := time.ParseDuration(service.StopGracePeriod); err != nil || grace <= stopLimit {
		t.Errorf("killed after %q (%v), but the server may take %v", service.StopGracePeriod, err, stopLimit)
	}
	if len(service.Volumes) != 1 || service.Volumes[0].Type != "volume" || service.Volumes[0].Target != image.Volumes[0] {
		t.Errorf("volumes %v, want one at %v", service.Volumes, image.Volumes)
	}
	if len(service.Ports) != 1 || yamlText(t, service.Ports[0].Target) != image.Ports[0] {
		t.Errorf("ports %v, want %v and no other: the metrics need no token", service.Ports, image.Ports)
	}
	var environ []string
	for name, value := range service.Environment {
		environ = append(environ, name+"="+value)
	}
	serves(t, environ)
}

// TestPrometheusConfiguration checks the few fields that are there; Prometheus' own reader is too large a tool for that.
func TestPrometheusConfiguration(t *testing.T) {
	text, err := os.ReadFile(repository(t, "deploy", "prometheus", "prometheus.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		ScrapeConfigs []struct {
			JobName        string                       `yaml:"job_name"`
			ScrapeInterval string                       `yaml:"scrape_interval"`
			MetricsPath    string                       `yaml:"metrics_path"`
			StaticConfigs  []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
		RuleFiles []string `yaml:"rule_files"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&config); err != nil {
		t.Fatal(err)
	}
	if len(config.ScrapeConfigs) != 1 || config.ScrapeConfigs[0].JobName != "persqld" {
		t.Fatalf("got %+v, want the job persqld, by which the alerts choose", config)
	}
	if a := client(t).As("").Get(config.ScrapeConfigs[0].MetricsPath); a.Status != 200 || len(scrape(string(a.Raw))) == 0 {
		t.Errorf("%s: %d", config.ScrapeConfigs[0].MetricsPath, a.Status)
	}
	for _, file := range config.RuleFiles {
		if _, err := os.Stat(repository(t, "deploy", "prometheus", file)); err != nil {
			t.Error(err)
		}
	}
}

// TestSystemdUnit has systemd read the unit, with the program at the place that it names.
func TestSystemdUnit(t *testing.T) {
	analyze := harness.Need(t, "systemd-analyze")
	text, err := os.ReadFile(repository(t, "deploy", "systemd", "persqld.service"))
	if err != nil {
		t.Fatal(err)
	}
	const installed = "/usr/local/bin/persqld"
	if !bytes.Contains(text, []byte("\nExecStart="+installed+" serve\n")) {
		t.Fatalf("the unit does not start %s serve", installed)
	}
	unit := filepath.Join(t.TempDir(), "persqld.service")
	if err := os.WriteFile(unit, bytes.Replace(text, []byte(installed), []byte(binary), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), analyze, "verify", unit).CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// The exposure that systemd rates: 0 is none, 100 all. A unit without these lines has 96.
	if out, err := exec.CommandContext(t.Context(), analyze, "security", "--no-pager", "--offline=true", "--threshold=20", unit).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, harness.Tail(string(out), 3000))
	}
	setting := func(name string) string {
		_, after, _ := strings.Cut(string(text), "\n"+name+"=")
		value, _, _ := strings.Cut(after, "\n")
		return value
	}
	if grace, err := time.ParseDuration(setting("TimeoutStopSec") + "s"); err != nil || grace <= stopLimit || setting("KillSignal") != "SIGTERM" {
		t.Errorf("%s, killed after %v (%v), but the server may take %v", setting("KillSignal"), grace, err, stopLimit)
	}
	if data := strings.TrimPrefix(setting("Environment"), "PERSQLD_DATA="); data != "/var/lib/"+setting("StateDirectory") {
		t.Errorf("the data is in %s, the unit's state in %s", data, setting("StateDirectory"))
	}
}
