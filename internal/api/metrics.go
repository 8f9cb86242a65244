package api

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/schedule"
)

// Metrics is what the server tells Prometheus. It is the store's Observer too. No metric has a label for a database.
type Metrics struct {
	registry *prometheus.Registry

	http            *prometheus.CounterVec
	duration        *prometheus.HistogramVec
	wait            prometheus.Histogram
	engine          prometheus.Histogram
	group           prometheus.Histogram
	fsyncs          prometheus.Counter
	open            prometheus.Gauge
	parked          prometheus.Gauge
	historyFailures prometheus.Counter
	historyLost     *prometheus.CounterVec
	replicaLag      prometheus.Histogram
	replicaBytes    *prometheus.CounterVec
	replicaFailures prometheus.Counter
	replicaRequests *prometheus.CounterVec
	replicaTime     *prometheus.HistogramVec
	scheduleRuns    *prometheus.CounterVec
	requests        prometheus.Counter
	read            prometheus.Counter
	written         prometheus.Counter
}

// NewMetrics returns the server's metrics.
func NewMetrics() *Metrics {
	fine := prometheus.ExponentialBuckets(16e-6, 4, 11) // 16 µs to 17 s
	m := &Metrics{
		registry:        prometheus.NewRegistry(),
		http:            prometheus.NewCounterVec(prometheus.CounterOpts{Name: "persqld_http_requests_total", Help: "HTTP requests answered."}, []string{"route", "status"}),
		duration:        prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "persqld_http_request_duration_seconds", Help: "Time from a request's header to its answer.", Buckets: fine}, []string{"route"}),
		wait:            prometheus.NewHistogram(prometheus.HistogramOpts{Name: "persqld_queue_wait_seconds", Help: "Time that a request waited in its database's queue.", Buckets: fine}),
		engine:          prometheus.NewHistogram(prometheus.HistogramOpts{Name: "persqld_engine_seconds", Help: "Time that a request was in the engine, without its commit.", Buckets: fine}),
		group:           prometheus.NewHistogram(prometheus.HistogramOpts{Name: "persqld_group_size", Help: "Requests that a database's actor took together.", Buckets: prometheus.ExponentialBuckets(1, 2, 9)}),
		fsyncs:          prometheus.NewCounter(prometheus.CounterOpts{Name: "persqld_fsyncs_total", Help: "Commits that were synced to the disk."}),
		open:            prometheus.NewGauge(prometheus.GaugeOpts{Name: "persqld_open_databases", Help: "Databases that are open."}),
		historyFailures: prometheus.NewCounter(prometheus.CounterOpts{Name: "persqld_history_failures_total", Help: "Times that a database's history could not be kept; writes went on."}),
		historyLost:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "persqld_history_lost_bytes_total", Help: "Bytes of history that its bounds of size took: exactness of old moments, or those moments."}, []string{"what"}),
		parked:          prometheus.NewGauge(prometheus.GaugeOpts{Name: "persqld_parked_statements", Help: "Long statements that wait for their turn."}),
		replicaLag:      prometheus.NewHistogram(prometheus.HistogramOpts{Name: "persqld_replica_lag_seconds", Help: "Age of the oldest transaction of an upload to the replica, when it was there.", Buckets: prometheus.ExponentialBuckets(0.125, 2, 15)}),
		replicaBytes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "persqld_replica_bytes_total", Help: "Bytes of files that were put into the replica, by level."}, []string{"level"}),
		replicaFailures: prometheus.NewCounter(prometheus.CounterOpts{Name: "persqld_replica_failures_total", Help: "Times that a database could not be brought up to date in the replica; it is tried again."}),
		replicaRequests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "persqld_replica_requests_total", Help: "Requests to the replica's storage."}, []string{"operation", "outcome"}),
		replicaTime:     prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "persqld_replica_request_duration_seconds", Help: "Time of requests to the replica's storage.", Buckets: fine}, []string{"operation"}),
		scheduleRuns:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "persqld_schedule_runs_total", Help: "Runs of schedules, by what became of them."}, []string{"outcome"}),
		requests:        prometheus.NewCounter(prometheus.CounterOpts{Name: "persqld_requests_total", Help: "Requests that databases ran."}),
		read:            prometheus.NewCounter(prometheus.CounterOpts{Name: "persqld_rows_read_total", Help: "Rows that statements read."}),
		written:         prometheus.NewCounter(prometheus.CounterOpts{Name: "persqld_rows_written_total", Help: "Rows that statements wrote, indexes included."}),
	}
	m.registry.MustRegister(m.http, m.duration, m.wait, m.engine, m.group, m.fsyncs, m.open, m.parked, m.historyFailures, m.historyLost, m.replicaLag, m.replicaBytes, m.replicaFailures, m.replicaRequests, m.replicaTime, m.scheduleRuns, m.requests, m.read, m.written,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, s := range schedule.Statuses() {
		m.scheduleRuns.WithLabelValues(string(s))
	}
	return m
}

// scheduleRan counts a schedule's run.
func (m *Metrics) scheduleRan(s schedule.Status) { m.scheduleRuns.WithLabelValues(string(s)).Inc() }

// Register adds a metric whose value a function tells at each scrape.
func (m *Metrics) Register(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

// RegisterCounter is Register for a number that only grows.
func (m *Metrics) RegisterCounter(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
}

// Handler answers a scrape.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Group, Request, Commit and Open make Metrics a store.Observer.
func (m *Metrics) Group(size int) { m.group.Observe(float64(size)) }

// Request counts a request's time in the queue and in the engine.
func (m *Metrics) Request(wait, engine time.Duration) {
	m.requests.Inc()
	m.wait.Observe(wait.Seconds())
	m.engine.Observe(engine.Seconds())
}

// Commit counts a synced commit.
func (m *Metrics) Commit() { m.fsyncs.Inc() }

// Open counts an opened (1) or closed (-1) database.
func (m *Metrics) Open(delta int) { m.open.Add(float64(delta)) }

// HistoryFailed counts a failure to keep history.
func (m *Metrics) HistoryFailed() { m.historyFailures.Inc() }

// HistoryLost counts what a bound of size took from a history.
func (m *Metrics) HistoryLost(exactness bool, bytes int64) {
	what := "moments"
	if exactness {
		what = "exactness"
	}
	m.historyLost.WithLabelValues(what).Add(float64(bytes))
}

// Shipped counts a file that was put into the replica.
func (m *Metrics) Shipped(level int, bytes int64) {
	m.replicaBytes.WithLabelValues(strconv.Itoa(level)).Add(float64(bytes))
}

// Lag is how far the replica was behind.
func (m *Metrics) Lag(d time.Duration) { m.replicaLag.Observe(d.Seconds()) }

// ShipFailed counts a failure to bring the replica up to date.
func (m *Metrics) ShipFailed() { m.replicaFailures.Inc() }

// Asked counts a request to the replica's storage.
func (m *Metrics) Asked(operation, outcome string, seconds float64) {
	m.replicaRequests.WithLabelValues(operation, outcome).Inc()
	m.replicaTime.WithLabelValues(operation).Observe(seconds)
}

// Parked counts a long statement that waits for its turn (1), or no longer (-1).
func (m *Metrics) Parked(delta int) { m.parked.Add(float64(delta)) }

// CountBilled has the meters tell the totals of what is billed.
func (m *Metrics) CountBilled(totals func() catalog.Work) {
	m.RegisterCounter("persqld_billed_requests_total", "Requests that were counted for namespaces.", func() float64 { return float64(totals().Requests) })
	m.RegisterCounter("persqld_billed_rows_read_total", "Rows read that were counted for namespaces.", func() float64 { return float64(totals().RowsRead) })
	m.RegisterCounter("persqld_billed_rows_written_total", "Rows written that were counted for namespaces, indexes included.", func() float64 { return float64(totals().RowsWritten) })
}

// rows counts what statements read and wrote.
func (m *Metrics) rows(read, written int64) {
	if read > 0 {
		m.read.Add(float64(read))
	}
	if written > 0 {
		m.written.Add(float64(written))
	}
}

// route is the metrics of one route, looked up once and not by their labels at every request.
type route struct {
	m        *Metrics
	pattern  string
	duration prometheus.Observer
	ok       prometheus.Counter
	others   [600]atomic.Pointer[prometheus.Counter]
}

func (m *Metrics) route(pattern string) *route {
	return &route{m: m, pattern: pattern, duration: m.duration.WithLabelValues(pattern), ok: m.http.WithLabelValues(pattern, "200")}
}

func (r *route) done(status int, d time.Duration) {
	r.duration.Observe(d.Seconds())
	if status == http.StatusOK {
		r.ok.Inc()
		return
	}
	if status < 0 || status >= len(r.others) {
		return
	}
	c := r.others[status].Load()
	if c == nil {
		counter := r.m.http.WithLabelValues(r.pattern, strconv.Itoa(status))
		c = &counter
		r.others[status].Store(c)
	}
	(*c).Inc()
}
