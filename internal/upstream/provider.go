package upstream

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/persqld/persqld/internal/outbound"
)

// The names of the providers, as addresses have them.
const (
	OIDC   = "oidc"
	GitHub = "github"
)

// Provider is whom people sign in with. Its methods may be called at the same time.
type Provider interface {
	// Name is one of the names above.
	Name() string
	// Label is what people call it.
	Label() string
	// Issuer is what its people are known under; no other provider has it.
	Issuer() string
	// Begin is the address to which the browser is sent for an attempt. It returns ErrUnavailable.
	Begin(ctx context.Context, a Attempt) (address string, err error)
	// Finish is who the parameters are of with which the browser came back. It returns ErrDenied, ErrUnavailable or ErrRefused.
	Finish(ctx context.Context, a Attempt, answer url.Values) (*Person, error)
}

// Attempt is what a sign-in is known by. Its texts are secrets of the server and one browser, and used once.
type Attempt struct {
	State    string
	Nonce    string
	Verifier string // of PKCE (RFC 7636)
	Return   string // the address of this server that the provider sends the browser back to
}

// NewAttempt is an attempt that nobody can guess.
func NewAttempt(back string) Attempt {
	return Attempt{State: oauth2.GenerateVerifier(), Nonce: oauth2.GenerateVerifier(), Verifier: oauth2.GenerateVerifier(), Return: back}
}

// Person is who signed in, as the provider says.
type Person struct {
	Issuer        string
	Subject       string
	Email         string // "" where it gives none
	EmailVerified bool
	Name          string // may be empty
	Picture       string // its address, as pictureOf takes it; "" for none
}

var (
	// ErrDenied is returned where the person, or the provider's operator, said no.
	ErrDenied = errors.New("the sign-in was not granted")
	// ErrUnavailable is returned where the provider can't be asked.
	ErrUnavailable = errors.New("the provider can't be reached")
	// ErrRefused is returned for an answer of the provider's that can't be trusted, or can't be read.
	ErrRefused = errors.New("the provider's answer can't be used")
)

// Options are what providers need.
type Options struct {
	ClientID     string
	ClientSecret string
	Client       *http.Client     // bounded, and judged where it connects to
	Now          func() time.Time // time.Now if nil
	Logger       *slog.Logger     // nothing is logged if nil
}

func (o *Options) fill() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// maxAnswer is the longest parameter of an answer that is looked at, in bytes.
const maxAnswer = 4096

// code is the code of an answer, which must be for the attempt. issuers are those that it may say it comes from (RFC 9207); where says is true it must say so.
func (a *Attempt) code(answer url.Values, says bool, issuers ...string) (string, error) {
	for name, values := range answer {
		if len(values) > 1 {
			return "", fmt.Errorf("%w: it has a parameter twice", ErrRefused)
		}
		if len(values[0]) > maxAnswer {
			return "", fmt.Errorf("%w: its parameter %s is too long", ErrRefused, safe(name))
		}
	}
	if a.State == "" || subtle.ConstantTimeCompare([]byte(answer.Get("state")), []byte(a.State)) != 1 {
		return "", fmt.Errorf("%w: it is for another attempt", ErrRefused)
	}
	// Before anything else of it counts, an error too: it may come from somebody else (RFC 9207, section 2.4).
	iss, said := answer.Get("iss"), answer.Has("iss")
	known := false
	for _, is := range issuers {
		known = known || iss == is
	}
	if said && !known || says && !said {
		return "", fmt.Errorf("%w: it is not from this provider", ErrRefused)
	}
	switch problem := answer.Get("error"); problem {
	case "":
	case "access_denied":
		return "", ErrDenied
	case "temporarily_unavailable", "server_error":
		return "", fmt.Errorf("%w: it says %s", ErrUnavailable, problem)
	default:
		return "", fmt.Errorf("%w: it says %s", ErrRefused, safe(problem))
	}
	if answer.Get("code") == "" {
		return "", fmt.Errorf("%w: it has no code", ErrRefused)
	}
	return answer.Get("code"), nil
}

// redeem exchanges a code for a token.
func redeem(ctx context.Context, config *oauth2.Config, a Attempt, code string) (*oauth2.Token, error) {
	t, err := config.Exchange(ctx, code, oauth2.VerifierOption(a.Verifier))
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		// What else it sent may be anything, and of any length.
		status, kind := refused.Response.StatusCode, ErrRefused
		if status >= http.StatusInternalServerError {
			kind = ErrUnavailable
		}
		return nil, fmt.Errorf("%w: its token endpoint answered %d %s", kind, status, safe(refused.ErrorCode))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: ask its token endpoint: %w", ErrUnavailable, outbound.Reason(err))
	}
	return t, nil
}

// safe is a stranger's text as it may stand in a line of the log.
func safe(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 60)]
}

// CheckURL returns an error with a reason for what is no address of a provider: https, or http on this machine; without query and fragment.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(text, "?# \t\r\n") || len(text) > 1024:
		return fmt.Errorf("%q is no address such as https://id.example.com", text)
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http":
		a, err := netip.ParseAddr(u.Hostname())
		if strings.EqualFold(u.Hostname(), "localhost") || err == nil && a.Unmap().IsLoopback() {
			return nil
		}
	}
	return fmt.Errorf("%q must begin with https://; plain http is for loopback addresses", text)
}
