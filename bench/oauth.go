package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	signInPeople      = 8 // who sign in to the app, one after another for each of them
	signInCodes       = 3_000
	signInConnections = 16
	signInCallback    = "https://app.example/callback"
	signInPassword    = "benchmarks only, never elsewhere"
	exchangeBar       = 300 // a second
	introspectBar     = 0.6
)

// measureSignIn looks at what apps ask often: tokens for codes, and whether a token is still good, beside a point SELECT of the same server.
func measureSignIn(ctx context.Context, ours *program, p pace) (verdicts []verdict, err error) {
	open := *ours
	open.env = append(slices.Clone(ours.env), "PERSQLD_SIGNUP=open")
	s, err := open.start(ctx, "sign-in", 0)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	if err := prepareOne(s); err != nil {
		return nil, err
	}
	app, err := makeApp(ctx, s)
	if err != nil {
		return nil, err
	}
	codes, err := app.codes(ctx, s)
	if err != nil {
		return nil, err
	}
	rate, token, err := app.exchange(s, codes)
	if err != nil {
		return nil, err
	}
	verdicts = append(verdicts, verdict{Work: "sign-in, code exchange", Metric: "rate", Ours: rate, Bar: "≥ " + formatRate(exchangeBar), Pass: rate >= exchangeBar, Judged: true, format: formatRate})

	read := &traffic{request: selectRequest("one"), connections: signInConnections, databases: 1, keys: bigRows, check: checkKey}
	look := &traffic{request: app.post("/oauth/introspect", url.Values{"token": {token}}), connections: signInConnections, databases: 1, keys: 1, plain: true}
	var ratios []float64
	for range signInTurns {
		a, err := measure(ctx, s, read, p.warm, p.window)
		if err != nil {
			return nil, err
		}
		b, err := measure(ctx, s, look, p.warm, p.window)
		if err != nil {
			return nil, err
		}
		ratios = append(ratios, b.Rate/a.Rate)
	}
	ratio := median(ratios)
	times := func(f float64) string { return fmt.Sprintf("%.2f ×", f) }
	return append(verdicts, verdict{Work: "sign-in, introspection", Metric: "rate beside a point select", Ours: ratio, Bar: "≥ " + times(introspectBar), Pass: ratio >= introspectBar, Judged: true, format: times}), nil
}

// signInTurns is how often both are measured.
const signInTurns = 3

// app is a confidential client.
type app struct{ id, secret string }

func makeApp(ctx context.Context, s *server) (*app, error) {
	var made struct {
		Data struct{ ClientID, ClientSecret string }
	}
	err := call(ctx, http.DefaultClient, http.MethodPost, "http://"+s.address+"/v1/oauth-apps", map[string]any{"name": "Bench", "redirectUris": []string{signInCallback}, "type": "confidential"}, &made)
	return &app{made.Data.ClientID, made.Data.ClientSecret}, err
}

// call is a request of the operator's with JSON.
func call(ctx context.Context, c *http.Client, method, address string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(b))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+benchToken)
	r.Header.Set("Content-Type", "application/json")
	return answerOf(c, r, out)
}

func answerOf(c *http.Client, r *http.Request, out any) error {
	res, err := c.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%w: %s: %d %.300s", errRefused, r.URL.Path, res.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// person is a browser that is signed in.
type person struct {
	http.Client
	base string
}

// signUp makes an account, which signs in.
func signUp(ctx context.Context, s *server, n int) (*person, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	p := &person{http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, "http://" + s.address}
	b, err := json.Marshal(map[string]string{"email": fmt.Sprintf("person%d@example.com", n), "password": signInPassword, "name": "Somebody"})
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+"/api/signup", bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	return p, answerOf(&p.Client, r, nil)
}

var hidden = regexp.MustCompile(`<input[^>]* name="(request|seal)"[^>]* value="([^"]*)"`)

// code has the person sign in to the app; at the first time it asks.
func (p *person) code(ctx context.Context, a *app) (string, error) {
	ask := url.Values{"response_type": {"code"}, "client_id": {a.id}, "redirect_uri": {signInCallback}, "scope": {"openid email"}, "state": {"a state of some length"}, "nonce": {"once"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"/oauth/authorize?"+ask.Encode(), nil)
	if err != nil {
		return "", err
	}
	for range 2 {
		res, err := p.Do(r)
		if err != nil {
			return "", err
		}
		page, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			return "", err
		}
		if to, err := res.Location(); err == nil && to.Query().Get("code") != "" {
			return to.Query().Get("code"), nil
		}
		form := url.Values{"decision": {"allow"}}
		for _, m := range hidden.FindAllSubmatch(page, -1) {
			form.Set(string(m[1]), html.UnescapeString(string(m[2])))
		}
		if form.Get("seal") == "" {
			return "", fmt.Errorf("%w: %d %.300s", errRefused, res.StatusCode, page)
		}
		if r, err = http.NewRequestWithContext(ctx, http.MethodPost, p.base+"/oauth/consent", strings.NewReader(form.Encode())); err != nil {
			return "", err
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", p.base)
	}
	return "", errors.New("the app got no code")
}

// codes are what the app gets from many people.
func (a *app) codes(ctx context.Context, s *server) ([]string, error) {
	codes := make([]string, signInCodes)
	failed := make(chan error, signInPeople)
	var wg sync.WaitGroup
	for n := range signInPeople {
		// One after another: passwords take much memory.
		p, err := signUp(ctx, s, n)
		if err != nil {
			return nil, err
		}
		wg.Go(func() {
			for i := n; i < len(codes); i += signInPeople {
				var err error
				if codes[i], err = p.code(ctx, a); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return nil, err
	default:
		return codes, nil
	}
}

// post is a request of the app's.
func (a *app) post(path string, form url.Values) template {
	body := form.Encode()
	return template{slugAt: -1, keyAt: -1, bytes: []byte("POST " + path + " HTTP/1.1\r\nHost: bench\r\nAuthorization: Basic " + base64.StdEncoding.EncodeToString([]byte(a.id+":"+a.secret)) +
		"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)}
}

// exchange has the app get tokens for all codes, over a few connections, and returns one of them.
func (a *app) exchange(s *server, codes []string) (rate float64, token string, err error) {
	var next atomic.Int64
	failed := make(chan error, signInConnections)
	var wg sync.WaitGroup
	var last atomic.Value
	began := time.Now()
	for range signInConnections {
		wg.Go(func() {
			c, err := dial(s.address)
			if err != nil {
				failed <- err
				return
			}
			defer c.close()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(codes) {
					return
				}
				request := a.post("/oauth/token", url.Values{"grant_type": {"authorization_code"}, "code": {codes[i]}, "redirect_uri": {signInCallback}})
				b, err := c.post(request.bytes)
				if err != nil {
					failed <- err
					return
				}
				var got struct {
					Access string `json:"access_token"`
					ID     string `json:"id_token"`
				}
				if err := json.Unmarshal(b, &got); err != nil || got.Access == "" || got.ID == "" {
					failed <- fmt.Errorf("%w: %.300s", errRefused, b)
					return
				}
				last.Store(got.Access)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	select {
	case err := <-failed:
		return 0, "", err
	default:
		return float64(len(codes)) / took.Seconds(), last.Load().(string), nil
	}
}
