package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// askFiles opens a data directory that no server has, and runs the request as a server would: through the store and the
// gate. The operator's machine is the limit, not the server's settings: they may be smaller than what is there.
func (cmd *sqlCmd) askFiles(ctx context.Context, body []byte) (data json.RawMessage, err error) {
	root, err := filepath.Abs(cmd.Data)
	if err != nil {
		return nil, fmt.Errorf("resolve data directory %s: %w", cmd.Data, err)
	}
	if missing(datadir.Layout(root).Catalog()) {
		return nil, fmt.Errorf("%w: %s", errNoData, root)
	}
	dir, err := datadir.Open(root)
	if errors.Is(err, datadir.ErrLocked) {
		return nil, errHeld(err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := sqlite.Initialize(sqlite.Setup{TempDir: dir.Temp()}); err != nil {
		return nil, err
	}
	cat, err := catalog.Open(ctx, dir.Catalog(), catalog.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cat.Close()) }()
	ns, err := cat.Namespace(cmd.namespace)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", cmd.Database, err)
	}
	qlog := querylog.Open(dir.QueryLog(), querylog.Options{Text: true})
	defer func() { err = errors.Join(err, qlog.Close()) }()
	st, err := store.New(store.Options{
		Dir: dir.Databases(), StatementTimeout: 24 * time.Hour, Limits: sqlite.Limits{Pages: math.MaxUint32 - 1},
		Tables: func(id string) []*sqlite.Table { return []*sqlite.Table{qlog.Table(id), api.DatabaseListTable()} },
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close(context.WithoutCancel(ctx))) }()
	door := api.New(api.Options{Catalog: cat, Placement: st, QueryLog: qlog, MaxRequest: maxAnswer, MaxResult: maxAnswer, MaxSQL: maxStatement})
	return cmd.send(ctx, &http.Client{Transport: inProcess{door.Operator(ns)}}, "http://localhost", "", body)
}

// inProcess is a transport that leads to a handler of this process.
type inProcess struct{ http.Handler }

// RoundTrip has the handler answer.
func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &recorded{header: http.Header{}, status: http.StatusOK}
	p.ServeHTTP(w, r)
	return &http.Response{StatusCode: w.status, Header: w.header, Body: io.NopCloser(&w.body), Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}, nil
}

// recorded is an answer that is kept.
type recorded struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorded) Header() http.Header         { return w.header }
func (w *recorded) WriteHeader(status int)      { w.status = status }
func (w *recorded) Write(b []byte) (int, error) { return w.body.Write(b) }
