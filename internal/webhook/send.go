package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/outbound"
)

const (
	// maxAnswer is how much of an answer's body is read, in bytes: enough to use the connection again after what receivers usually say.
	maxAnswer = 64 << 10
	// maxAnswerHeader is how long an answer's header may be, in bytes.
	maxAnswerHeader = 32 << 10
	// maxReason is how much of an error is kept, in bytes.
	maxReason = 300
	// idleConns is how many connections are kept open, a receiver, and idleTime for how long.
	idleConns = 2
	idleTime  = 30 * time.Second
)

// sender posts messages.
type sender struct {
	client *http.Client
	agent  string
}

// newSender posts to where networks lets it. Where a name leads is looked at when it is connected to, so that one whose address changes meanwhile leads nowhere else.
func newSender(networks outbound.Networks, timeout time.Duration, version string) *sender {
	return &sender{
		agent: strings.TrimSuffix("persqld/"+version, "/"),
		client: &http.Client{
			Timeout:       timeout,
			Transport:     outbound.NewTransport(networks, outbound.TransportOptions{Timeout: timeout, MaxHeader: maxAnswerHeader, MaxIdle: 256, MaxIdleAHost: idleConns, IdleTime: idleTime}),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// outcome is what came of an attempt.
type outcome struct {
	status     int    // of the answer; 0 without one
	reason     string // why it failed; "" if it didn't
	took       time.Duration
	retryAfter time.Duration // what the receiver asked for
}

func (o *outcome) ok() bool { return o.reason == "" }

// post sends a message once.
func (s *sender) post(ctx context.Context, address, id string, at time.Time, signature string, body []byte) (o outcome) {
	began := time.Now()
	defer func() { o.took = time.Since(began) }()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return outcome{reason: short(err)}
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", s.agent)
	r.Header.Set("Webhook-Id", id)
	r.Header.Set("Webhook-Timestamp", strconv.FormatInt(at.Unix(), 10))
	r.Header.Set("Webhook-Signature", signature)
	answer, err := s.client.Do(r)
	if err != nil {
		return outcome{reason: short(err)}
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer) // the status says all; what is longer costs the receiver its connection
	o.status = answer.StatusCode
	if o.status < 200 || o.status > 299 {
		o.reason = "the receiver answered " + strconv.Itoa(o.status)
		if o.status > 299 && o.status < 400 {
			o.reason += ": redirects are not followed"
		}
		o.retryAfter = retryAfter(answer.Header.Get("Retry-After"))
	}
	return o
}

// retryAfter is how long a receiver asks to be left alone: seconds or a date (RFC 9110, section 10.2.3), an hour at most.
func retryAfter(text string) time.Duration {
	seconds, err := strconv.Atoi(text)
	if err != nil {
		at, err := http.ParseTime(text)
		if err != nil {
			return 0
		}
		return max(0, min(time.Until(at), maxBackoff))
	}
	return time.Duration(max(0, min(seconds, int(maxBackoff/time.Second)))) * time.Second
}

// short is why an attempt failed, in few words.
func short(err error) string {
	err = outbound.Reason(err)
	text := err.Error()
	if errors.Is(err, outbound.ErrAddress) {
		text = text[strings.Index(text, outbound.ErrAddress.Error()):] + " (PERSQLD_ALLOW_NETWORKS)"
	}
	return text[:min(len(text), maxReason)]
}
