package outbound

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// ClientOptions bound what a client does.
type ClientOptions struct {
	Timeout time.Duration // of a request with its answer, in all
	MaxBody int64         // bytes of an answer's body; beyond them reading it fails
	Version string        // of the program, for the User-Agent
}

// NewClient is a client for libraries that take one. It judges every address before it is asked and once more when it is connected to, and follows no redirect: a
// redirect is the answer.
func NewClient(networks Networks, o ClientOptions) *http.Client {
	return &http.Client{
		Timeout: o.Timeout,
		Transport: &bounded{networks: networks, limit: o.MaxBody, agent: strings.TrimSuffix("persqld/"+o.Version, "/"),
			next: NewTransport(networks, TransportOptions{Timeout: o.Timeout, MaxHeader: maxHeader, MaxIdle: 16, MaxIdleAHost: 1, IdleTime: idleTime})},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded is the way of a client's requests.
type bounded struct {
	networks Networks
	limit    int64
	agent    string
	next     http.RoundTripper
}

// RoundTrip sends a request.
func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := b.networks.CheckURL(r.URL.String()); err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", b.agent)
	answer, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = &boundedBody{ReadCloser: answer.Body, left: b.limit, limit: b.limit}
	return answer, nil
}

// boundedBody fails where a body goes on beyond its limit.
type boundedBody struct {
	io.ReadCloser
	left, limit int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("the document is larger than %d bytes", b.limit)
	}
	return n, err
}
