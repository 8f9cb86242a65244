package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/datadir"
)

// askFiles opens a data directory that no server has, and runs the request as a server would: through the store and the
// gate. The operator's machine is the limit, not the server's settings: they may be smaller than what is there.
func (cmd *sqlCmd) askFiles(ctx context.Context, body []byte) (data json.RawMessage, err error) {
	f, err := openFiles(ctx, cmd.Data)
	if errors.Is(err, datadir.ErrLocked) {
		return nil, errHeld(err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close(ctx)) }()
	ns, err := f.cat.Namespace(cmd.namespace)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", cmd.Database, err)
	}
	door := api.New(api.Options{Catalog: f.cat, Placement: f.store, QueryLog: f.log, Past: f.past.forAPI(), MaxRequest: maxAnswer, MaxResult: maxAnswer, MaxSQL: maxStatement})
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
