package buckettest

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"testing"
)

// Fault is what a proxy does with requests.
type Fault int

// The faults.
const (
	None     Fault = iota
	Error500       // is answered, as S3 answers it
	SlowDown       // is answered: 503
	Plain502       // is answered with a page, as a proxy's
	Plain404       // likewise: what a proxy says that has no server just now
	Plain200       // likewise: what a portal says to everybody
	Hang           // until the client gives up, or the fault ends, which cuts the connection
	Cut            // the connection in the middle of the request's body; one without a body at once
	CutReply       // the connection in the middle of the answer's body
	Silent         // in the middle of the answer's body: nothing more comes
	Echo403        // is answered with what the request had as credentials
	Flip           // a bit of the request's body on its way
	NoUpload       // is answered, as to who completes an upload in parts that is gone
)

// Proxy stands before an S3 server. It changes nothing that passes, so that signatures stand.
type Proxy struct {
	URL string // an endpoint

	mu     sync.Mutex
	fault  Fault
	left   int // how many requests the fault still meets; negative for all
	ended  chan struct{}
	seen   []string // of each request: the method, the path and what was done
	met    int      // requests that met a fault
	on     func(*http.Request)
	choose func(*http.Request) Fault
}

// NewProxy starts a proxy before an endpoint, for one test.
func NewProxy(t testing.TB, endpoint string) *Proxy {
	t.Helper()
	return newProxy(t, endpoint, (*httptest.Server).Start)
}

// NewTLSProxy starts one that speaks HTTPS, and returns its certificate in PEM, which nobody trusts.
func NewTLSProxy(t testing.TB, endpoint string) (p *Proxy, certificate []byte) {
	t.Helper()
	p = newProxy(t, endpoint, func(s *httptest.Server) {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	})
	return p, certificate
}

func newProxy(t testing.TB, endpoint string, start func(*httptest.Server)) *Proxy {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{ended: make(chan struct{})}
	transport := &http.Transport{DisableCompression: true}
	through := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which is signed
		},
		FlushInterval:  -1,
		ModifyResponse: p.answer,
		ErrorLog:       log.New(io.Discard, "", 0),
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, through) }))
	start(server)
	p.URL = server.URL
	t.Cleanup(func() {
		p.Set(None)
		server.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// Set makes all requests from now on meet a fault. Those that hang are cut.
func (p *Proxy) Set(f Fault) { p.SetNext(f, -1) }

// SetNext makes the next n requests meet a fault; negative is all.
func (p *Proxy) SetNext(f Fault, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.left, p.choose = f, n, nil
	close(p.ended)
	p.ended = make(chan struct{})
}

// OnRequest has a function called with each request before anything is done with it.
func (p *Proxy) OnRequest(f func(*http.Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on = f
}

// Choose has a function say which fault a request meets. Set and SetNext end that. Calls come one at a time.
func (p *Proxy) Choose(f func(*http.Request) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choose = f
}

// Requests is how many came, and how many of them met a fault.
func (p *Proxy) Requests() (all, met int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.seen), p.met
}

// Seen are the requests, as "PUT /bucket/key?query".
func (p *Proxy) Seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.seen...)
}

// next is what is done with a request, and what ends it.
func (p *Proxy) next(r *http.Request) (Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, r.Method+" "+r.URL.RequestURI())
	if p.on != nil {
		p.on(r)
	}
	fault := None
	switch {
	case p.choose != nil:
		fault = p.choose(r)
	case p.left != 0:
		fault = p.fault
		p.left--
	}
	if fault != None {
		p.met++
	}
	return fault, p.ended
}

// faultHeader carries the fault of a request to its answer.
const faultHeader = "X-Buckettest-Fault"

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, through http.Handler) {
	fault, ended := p.next(r)
	switch fault {
	case None:
		through.ServeHTTP(w, r)
	case Error500:
		refuse(w, http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
	case SlowDown:
		refuse(w, http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
	case Plain502, Plain404, Plain200:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(map[Fault]int{Plain502: http.StatusBadGateway, Plain404: http.StatusNotFound, Plain200: http.StatusOK}[fault])
		_, _ = io.WriteString(w, "<html><body>not what you want</body></html>")
	case Echo403:
		refuse(w, http.StatusForbidden, "AccessDenied", "refused: "+r.Header.Get("Authorization")+" "+SecretKey)
	case Hang:
		select {
		case <-r.Context().Done():
		case <-ended:
		}
		panic(http.ErrAbortHandler)
	case Cut:
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		panic(http.ErrAbortHandler)
	case NoUpload:
		refuse(w, http.StatusNotFound, "NoSuchUpload", "The specified multipart upload does not exist.")
	case Flip:
		r.Body = &flippedBody{ReadCloser: r.Body}
		through.ServeHTTP(w, r)
	case CutReply, Silent:
		r.Header.Set(faultHeader, strconv.Itoa(int(fault)))
		through.ServeHTTP(w, r)
	}
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>`+code+`</Code><Message>`+message+`</Message></Error>`)
}

// answer breaks the body of an answer whose request says so.
func (p *Proxy) answer(res *http.Response) error {
	n, err := strconv.Atoi(res.Request.Header.Get(faultHeader))
	if err != nil {
		return nil
	}
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	res.Body = &brokenBody{ReadCloser: res.Body, left: res.ContentLength / 2, silent: Fault(n) == Silent, gone: res.Request.Context().Done(), ended: ended}
	return nil
}

// brokenBody ends, or falls silent, before its time.
type brokenBody struct {
	io.ReadCloser
	left        int64
	silent      bool
	gone, ended <-chan struct{}
}

func (b *brokenBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		if b.silent {
			select {
			case <-b.gone:
			case <-b.ended:
			}
		}
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// flippedBody has another first bit.
type flippedBody struct {
	io.ReadCloser
	done bool
}

func (b *flippedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 && !b.done {
		p[0] ^= 1
		b.done = true
	}
	return n, err
}
