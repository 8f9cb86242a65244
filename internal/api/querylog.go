package api

import (
	"net/http"
	"time"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/querylog"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// entry writes one statement to the query log.
func (r *run) entry(sql []byte, res store.Result, span time.Duration, err error) {
	if r.x.s.opt.QueryLog == nil || r.x.database == nil {
		return
	}
	r.x.s.opt.QueryLog.Append(r.logged(sql, res, span, err))
}

// logged is the query log's entry of one statement.
func (r *run) logged(sql []byte, res store.Result, span time.Duration, err error) querylog.Entry {
	x := r.x
	began := r.began
	if began.IsZero() || x.lent {
		began = x.s.opt.Now()
	}
	e := querylog.Entry{Database: x.database.ID, TS: began.UnixMilli(), SQL: sql, RowsRead: res.RowsRead, RowsWritten: res.RowsWritten,
		Duration: span, Status: "ok", TokenID: x.token.ID}
	if err != nil {
		e.Status, e.Error = "error", x.s.shortOf(err)
	}
	return e
}

const (
	logLimit    = 100
	logMaxLimit = 1000
)

// queryLog serves GET …/query-log.
func (s *Server) queryLog(x *exchange) error {
	if err := x.openDatabase(false); err != nil {
		return err
	}
	q := x.r.URL.Query()
	limit, err := x.limit(logLimit, logMaxLimit)
	if err != nil {
		return err
	}
	f := querylog.Filter{Limit: limit, TokenID: q.Get("tokenId")}
	if gate.LevelOf(x.token.Role) < gate.LevelAdmin || x.token.TableScope != nil || boundBy(x.token, x.database) != nil { // its own rows alone
		if f.TokenID != "" && f.TokenID != x.token.ID {
			return newFault(http.StatusForbidden, codeForbidden, "A token sees its own rows of the query log", "leave tokenId out, or use an admin token without tableScope and claims")
		}
		f.TokenID = x.token.ID
	}
	if v := q.Get("since"); v != "" {
		ms, ok := wire.ParseMoment(v)
		if !ok {
			return newFault(http.StatusBadRequest, codeBadRequest, "since must be Unix milliseconds or a time in ISO 8601", "for example 1767225600000 or 2026-01-01T00:00:00Z")
		}
		f.SinceMS = ms
	}
	var rows []querylog.Row
	if s.opt.QueryLog != nil {
		var err error
		if rows, err = s.opt.QueryLog.Read(x.r.Context(), x.database.ID, f); err != nil {
			return err
		}
	}
	x.success()
	b := append(x.out, '[')
	for i := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		r := &rows[i]
		b = append(b, `{"id":`...)
		b = wire.AppendString(b, r.ID.String())
		b = append(b, `,"ts":`...)
		b = wire.AppendInt(b, r.TS)
		b = append(b, `,"sql":`...)
		b = wire.AppendString(b, r.SQL)
		b = append(b, `,"rowsRead":`...)
		b = wire.AppendInt(b, r.RowsRead)
		b = append(b, `,"rowsWritten":`...)
		b = wire.AppendInt(b, r.RowsWritten)
		b = append(b, `,"durationMs":`...)
		b = appendMillis(b, r.Duration)
		b = append(b, `,"status":`...)
		b = wire.AppendString(b, r.Status)
		b = append(b, `,"error":`...)
		if r.Error == "" {
			b = append(b, `null`...)
		} else {
			b = wire.AppendString(b, r.Error)
		}
		b = append(b, `,"tokenId":`...)
		b = wire.AppendString(b, r.TokenID)
		b = append(b, '}')
	}
	x.out = append(b, `]}`...)
	return nil
}
