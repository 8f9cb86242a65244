package main

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// anything is a gate that lets everything through.
type anything struct{}

func (anything) Permit(sqlite.Access) error { return nil }
func (anything) Judge(*sqlite.Stmt) error   { return nil }

// What the bound of a history takes is in the audit log and in the metrics; writes go on, and the latest moments stay.
func TestHistoryBound(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, err := datadir.Open(filepath.Join(t.TempDir(), "data"))
	must(err)
	must(sqlite.Initialize(sqlite.Setup{TempDir: dir.Temp()}))
	cat, err := catalog.Open(t.Context(), dir.Catalog(), catalog.Options{})
	must(err)
	ns, err := cat.CreateNamespace(t.Context(), "acme")
	must(err)
	d, _, err := cat.CreateDatabase(t.Context(), catalog.NewDatabase{NamespaceID: ns.ID, Slug: "orders"})
	must(err)
	logger := slog.New(slog.DiscardHandler)
	const bound = 1 << 20
	p, err := openPast(dir, pastOptions{keep: 720 * time.Hour, exact: 24 * time.Hour, maxDatabase: bound}, logger)
	must(err)
	st, err := store.New(store.Options{Dir: dir.Databases(), Temp: dir.Temp(), Past: p.forStore(), Clock: p.forClock(), StatementTimeout: time.Minute})
	must(err)
	defer func() { must(errors.Join(st.Close(t.Context()), p.close(true), cat.Close(), dir.Close())) }()
	must(st.Create(t.Context(), d.ID))
	metrics := api.NewMetrics()
	k := p.keeper(t.Context(), cat, st, metrics, dir, logger)
	write := func(sql string) {
		t.Helper()
		must(st.Do(t.Context(), d.ID, &store.Request{Gate: anything{}, Job: store.JobFunc(func(tx *store.Tx) error { return tx.Query(sql, nil, nil) })}))
	}
	write("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	for range 60 {
		write("REPLACE INTO t VALUES(1, randomblob(60000))")
		must(st.Keep(t.Context(), d.ID))
	}
	k.Tend(t.Context(), d.ID)

	if n, err := p.history.Usage(d.ID); err != nil || n > bound {
		t.Errorf("the history has %d bytes, %v", n, err)
	}
	list, err := cat.Audit(t.Context(), catalog.AuditQuery{NamespaceID: ns.ID, Action: "history.shortened", Limit: 10})
	if err != nil || len(list) == 0 || list[0].TargetID != d.ID || list[0].Metadata["before"] == nil {
		t.Errorf("audit log: %+v, %v", list, err)
	}
	w := httptest.NewRecorder()
	metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(w.Body.String(), `persqld_history_lost_bytes_total{what="`) {
		t.Error("the metrics have nothing of it")
	}
	var gap *history.GapError
	if err := p.history.Restore(t.Context(), d.ID, 30, filepath.Join(t.TempDir(), "gone.db")); !errors.As(err, &gap) || !gap.HasBefore && !gap.HasAfter {
		t.Errorf("a moment that went: %v", err)
	}
	write("REPLACE INTO t VALUES(2, 'goes on')")
	must(st.Keep(t.Context(), d.ID))
	last, _, err := st.Position(t.Context(), d.ID)
	must(err)
	must(p.history.Restore(t.Context(), d.ID, last, filepath.Join(t.TempDir(), "last.db")))
}
