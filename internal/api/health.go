package api

import (
	"net/http"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/wire"
)

// healthz serves GET /healthz: the process answers.
func (s *Server) healthz(x *exchange) error {
	x.success()
	x.out = append(x.out, `{"status":"ok"}}`...)
	return nil
}

// readyz serves GET /readyz: requests may be sent here.
func (s *Server) readyz(x *exchange) error {
	if !s.ready.Load() || s.draining.Load() {
		f := newFault(http.StatusServiceUnavailable, "not_ready", "The server is starting", "")
		if s.draining.Load() {
			f.message, f.code = "The server is shutting down", "shutting_down"
		}
		f.retry = time.Second
		return f
	}
	x.success()
	x.out = append(x.out, `{"status":"ready"}}`...)
	return nil
}

// version serves GET /version, outside the envelope: {version, sqliteVersion, rowMeter}.
func (s *Server) version(x *exchange) error {
	b := append(x.out[:0], `{"version":`...)
	b = wire.AppendString(b, s.opt.Version)
	b = append(b, `,"sqliteVersion":`...)
	b = wire.AppendString(b, sqlite.Version())
	b = append(b, `,"rowMeter":`...)
	b = wire.AppendString(b, sqlite.RowMeter())
	x.out = append(b, '}')
	return nil
}
