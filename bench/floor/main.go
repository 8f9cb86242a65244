// Command floor is what persqld's speed is judged by: the bare job done well,
// in one small program that shares no code with it. It serves POST
// /v1/db/:ns/:db/query and /batch with the same bytes in and out, and has no
// catalog, no meters, no log and no limits. See ../README.md.
//
// It is configured by the same environment as persqld (PERSQLD_LISTEN,
// PERSQLD_DATA, PERSQLD_TOKEN, PERSQLD_NAMESPACE, PERSQLD_MAX_OPEN), so that
// the driver starts both alike. FLOOR_PPROF is an address for pprof.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-chi/chi/v5"
	"modernc.org/sqlite"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func setting(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

func run() error {
	if _, err := sqlite.OFDLocking(true); err != nil {
		return fmt.Errorf("switch to OFD locks: %w", err)
	}
	maxOpen, err := strconv.Atoi(setting("PERSQLD_MAX_OPEN", "4096"))
	if err != nil || maxOpen < 1 {
		return errors.New("PERSQLD_MAX_OPEN isn't a number from 1")
	}
	dir := setting("PERSQLD_DATA", "./data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	h := &handler{
		store:     newStore(dir, maxOpen),
		namespace: setting("PERSQLD_NAMESPACE", "default"),
		token:     sha256.Sum256([]byte(os.Getenv("PERSQLD_TOKEN"))),
	}
	if addr := os.Getenv("FLOOR_PPROF"); addr != "" {
		go func() { fmt.Fprintln(os.Stderr, "pprof:", http.ListenAndServe(addr, nil)) }()
	}
	l, err := net.Listen("tcp", setting("PERSQLD_LISTEN", ":8080"))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h.routes()}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	err = srv.Shutdown(grace)
	h.store.closeAll()
	return err
}

type handler struct {
	store     *store
	namespace string
	token     [sha256.Size]byte
}

func (h *handler) routes() http.Handler {
	r := chi.NewRouter()
	r.Get("/readyz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	r.Post("/v1/db/{ns}/{db}/query", func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, false) })
	r.Post("/v1/db/{ns}/{db}/batch", func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, true) })
	return r
}

var contentType = []string{"application/json"}

func (h *handler) serve(w http.ResponseWriter, r *http.Request, batch bool) {
	j := jobs.Get().(*job)
	defer j.release()
	status := h.answer(j, r, batch)
	head := w.Header()
	head["Content-Type"] = contentType
	head["X-Request-Id"] = []string{requestID(r)}
	head["Content-Length"] = []string{strconv.Itoa(len(j.out))}
	if status != http.StatusOK {
		w.WriteHeader(status)
	}
	// A client that went away is nobody's error.
	_, _ = w.Write(j.out)
}

// answer fills the job's out and returns the status.
func (h *handler) answer(j *job, r *http.Request, batch bool) int {
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(bearer))
	if !ok || subtle.ConstantTimeCompare(sum[:], h.token[:]) != 1 {
		j.fail(errors.New("invalid or expired token"))
		return http.StatusUnauthorized
	}
	if chi.URLParam(r, "ns") != h.namespace {
		j.fail(errors.New("token namespace mismatch"))
		return http.StatusForbidden
	}
	slug := chi.URLParam(r, "db")
	if !validSlug(slug) {
		j.fail(errors.New("database not found"))
		return http.StatusNotFound
	}
	if err := j.read(r); err != nil {
		j.fail(err)
		return http.StatusBadRequest
	}
	if err := j.decode(batch); err != nil {
		j.fail(err)
		return http.StatusBadRequest
	}
	h.store.do(slug, j)
	if j.err != nil {
		j.fail(j.err)
		return http.StatusBadRequest
	}
	return http.StatusOK
}

// read reads the whole body into the job's buffer.
func (j *job) read(r *http.Request) error {
	if n := r.ContentLength; n >= 0 && int64(cap(j.body)) < n+1 {
		j.body = make([]byte, 0, n+1)
	}
	for {
		if len(j.body) == cap(j.body) {
			j.body = append(j.body, 0)[:len(j.body)]
		}
		n, err := r.Body.Read(j.body[len(j.body):cap(j.body)])
		j.body = j.body[:len(j.body)+n]
		if int64(len(j.body)) == r.ContentLength {
			return nil
		}
		if err != nil {
			if r.ContentLength < 0 && err == io.EOF {
				return nil
			}
			return fmt.Errorf("read body: %w", err)
		}
	}
}

func requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); id != "" && len(id) <= 128 {
		return id
	}
	const digits = "0123456789abcdef"
	var id [32]byte
	for i := 0; i < len(id); i += 16 {
		n := rand.Uint64()
		for k := range 16 {
			id[i+k] = digits[n>>(4*k)&15]
		}
	}
	return string(id[:])
}

func validSlug(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0) {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 63
}
