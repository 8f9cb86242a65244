package api

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// events serves GET …/changes as Server-Sent Events (HTML standard, section 9.2).
func (s *Server) events(x *exchange) error {
	q, err := x.openFeed()
	if err != nil {
		return err
	}
	l, r, err := x.join(q)
	if err != nil {
		return err
	}
	defer l.leave()
	defer r.Leave()
	h := x.w.Header()
	h["Content-Type"] = []string{"text/event-stream"}
	h["Cache-Control"] = noStore
	h["X-Accel-Buffering"] = []string{"no"} // of nginx, which else keeps events for itself
	h["X-Request-Id"] = []string{x.id}
	x.sent, x.status = true, http.StatusOK
	defer context.AfterFunc(x.r.Context(), func() { l.end(context.Canceled) })()
	control := http.NewResponseController(x.w)
	send := func() bool {
		_ = control.SetWriteDeadline(time.Now().Add(writeTime))
		_, err := x.w.Write(x.out)
		if err == nil {
			err = control.Flush()
		}
		_ = control.SetWriteDeadline(time.Time{})
		if err != nil && isTimeout(err) {
			s.opt.Feed.Cut()
		}
		x.out = x.out[:0]
		return err == nil
	}
	x.out = appendEvent(x.out[:0], "subscribed", r.Seen(), l.subscribed(r.Seen()))
	if !send() {
		return nil
	}
	beat := time.NewTicker(pingEvery)
	defer beat.Stop()
	for {
		list, resync, news, err := r.Next(l.ctx)
		if err == nil && len(list) > 0 {
			err = l.look()
		}
		if err != nil || l.ctx.Err() != nil {
			return nil // the client comes back with the last id, and is told why it can't
		}
		if resync {
			x.out = appendEvent(x.out, "error", r.Seen(), resyncMessage)
		}
		count := 0
		ok := true
		l.pick(list, q.rows, func(seq int64, message []byte) bool {
			x.out = appendEvent(x.out, "change", seq, message)
			if count++; len(x.out) > corkBytes {
				ok = send()
			}
			return ok
		})
		s.opt.Feed.Deliver(count)
		if !ok || len(x.out) > 0 && !send() {
			return nil
		}
		if len(list) > 0 || resync {
			continue
		}
		select {
		case <-news:
		case <-beat.C:
			if x.out = append(x.out, ": still here\n\n"...); !send() {
				return nil
			}
		case <-l.ctx.Done():
			return nil
		}
	}
}

// appendEvent appends an event. JSON as it is written here has no line breaks.
func appendEvent(b []byte, name string, id int64, data []byte) []byte {
	b = append(b, "id: "...)
	b = strconv.AppendInt(b, id, 10)
	b = append(b, "\nevent: "...)
	b = append(b, name...)
	b = append(b, "\ndata: "...)
	b = append(b, data...)
	return append(b, "\n\n"...)
}
