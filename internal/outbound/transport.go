package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// TransportOptions bound what a transport does.
type TransportOptions struct {
	Timeout               time.Duration // of connecting, and of the TLS handshake
	MaxHeader             int64         // bytes of an answer's header
	MaxIdle, MaxIdleAHost int           // connections that are kept open
	IdleTime              time.Duration // and for how long
}

// NewTransport connects to where networks lets it. It takes no proxy: what the environment says is for other programs, and a proxy connects to where we may not.
func NewTransport(networks Networks, o TransportOptions) http.RoundTripper {
	transport := func(plain bool) *http.Transport {
		dialer := &net.Dialer{Timeout: o.Timeout, Control: func(_, address string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if !networks.MayReach(a.Addr(), plain) {
				return fmt.Errorf("%w: %s", ErrAddress, a.Addr())
			}
			return nil
		}}
		return &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: o.Timeout,
			MaxResponseHeaderBytes: o.MaxHeader, DisableCompression: true,
			MaxIdleConns: o.MaxIdle, MaxIdleConnsPerHost: o.MaxIdleAHost, IdleConnTimeout: o.IdleTime,
		}
	}
	return &byScheme{plain: transport(true), secure: transport(false)}
}

// byScheme takes http and https different ways.
type byScheme struct{ plain, secure *http.Transport }

// RoundTrip sends a request.
func (b *byScheme) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" {
		return b.plain.RoundTrip(r)
	}
	return b.secure.RoundTrip(r)
}

// CloseIdleConnections closes what nobody uses.
func (b *byScheme) CloseIdleConnections() {
	b.plain.CloseIdleConnections()
	b.secure.CloseIdleConnections()
}

// Fetcher reads documents.
type Fetcher struct {
	networks Networks
	client   *http.Client
	agent    string
}

const (
	maxHeader = 32 << 10
	idleTime  = 30 * time.Second
)

// NewFetcher reads documents from where networks lets it, each within timeout in all. Redirects are not followed: they would lead past what was said of the address.
func NewFetcher(networks Networks, timeout time.Duration, version string) *Fetcher {
	return &Fetcher{networks: networks, agent: strings.TrimSuffix("persqld/"+version, "/"), client: &http.Client{
		Timeout:       timeout,
		Transport:     NewTransport(networks, TransportOptions{Timeout: timeout, MaxHeader: maxHeader, MaxIdle: 16, MaxIdleAHost: 1, IdleTime: idleTime}),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Document is what was at an address, with what its header says of it.
type Document struct {
	Body                      []byte
	ContentType, CacheControl string
}

// StatusError is the failure of a server that answers with another status than 200.
type StatusError struct{ Status int }

// Error tells of the status.
func (e *StatusError) Error() string {
	if e.Status > 299 && e.Status < 400 {
		return fmt.Sprintf("it answered %d: redirects are not followed", e.Status)
	}
	return fmt.Sprintf("it answered %d", e.Status)
}

// ErrTooLarge is returned for a document of more bytes than it may have.
var ErrTooLarge = errors.New("the document is too large")

// Get reads the document at an address, of at most limit bytes. Any other status than 200 is an error.
func (f *Fetcher) Get(ctx context.Context, address string, limit int64) ([]byte, error) {
	d, err := f.GetDocument(ctx, address, limit)
	return d.Body, err
}

// GetDocument is Get with what the header says of the document. It returns ErrURL, ErrAddress, a StatusError, ErrTooLarge, or why the document can't be had.
func (f *Fetcher) GetDocument(ctx context.Context, address string, limit int64) (d Document, err error) {
	if err := f.networks.CheckURL(address); err != nil {
		return d, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return d, err
	}
	r.Header.Set("User-Agent", f.agent)
	r.Header.Set("Accept", "application/json")
	answer, err := f.client.Do(r)
	if err != nil {
		return d, Reason(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return d, &StatusError{answer.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil {
		return d, Reason(err)
	}
	if int64(len(body)) > limit {
		return d, fmt.Errorf("%w: it has more than %d bytes", ErrTooLarge, limit)
	}
	return Document{body, answer.Header.Get("Content-Type"), strings.Join(answer.Header["Cache-Control"], ",")}, nil
}

// Reason is why a request failed, without the address that it was for: there may be a secret in that.
func Reason(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("it did not answer in time")
	}
	return err
}
