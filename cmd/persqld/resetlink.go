package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/config"
)

const (
	minResetLink = time.Minute
	maxResetLink = 7 * 24 * time.Hour
)

var errDisabled = errors.New("the user is disabled")

type resetLinkCmd struct {
	config.Location `embed:"" group:"settings"`
	BaseURL         string        `name:"base-url" group:"settings" help:"Public origin of the server; that of the running server if there is one, else the link is a path." placeholder:"URL"`
	Email           string        `required:"" help:"The user's e-mail address." placeholder:"EMAIL"`
	Expires         time.Duration `default:"1h" help:"How long the link works, 1m to 168h." placeholder:"TIME"`
}

// Validate refuses a time out of the range.
func (cmd *resetLinkCmd) Validate() error {
	if cmd.Expires < minResetLink || cmd.Expires > maxResetLink {
		return fmt.Errorf("--expires is %s, out of its range %s to %s", cmd.Expires, "1m", "168h")
	}
	return nil
}

type resetLinkArgs struct {
	Email   string `json:"email"`
	Seconds int64  `json:"seconds"`
	BaseURL string `json:"baseUrl,omitempty"`
}

type resetLinkInfo struct {
	Email     string    `json:"email"`
	URL       string    `json:"url"`
	ExpiresAt time.Time `json:"expiresAt"`
}

func resetLink(ctx context.Context, c *ledgers, args resetLinkArgs) (resetLinkInfo, error) {
	u, err := userOf(c, args.Email)
	if err != nil {
		return resetLinkInfo{}, err
	}
	if !u.DisabledAt.IsZero() {
		return resetLinkInfo{}, fmt.Errorf("make a link for %s: %w", u.Email, errDisabled)
	}
	life := time.Duration(args.Seconds) * time.Second
	if life < minResetLink || life > maxResetLink {
		return resetLinkInfo{}, fmt.Errorf("a link works from %s to %s", "1m", "168h")
	}
	expires := time.Now().Add(life).UTC().Truncate(time.Millisecond)
	secret, err := c.CreateReset(ctx, u.ID, expires)
	if err != nil {
		return resetLinkInfo{}, err
	}
	base := c.baseURL
	if base == "" {
		base = args.BaseURL
	}
	return resetLinkInfo{u.Email, strings.TrimRight(base, "/") + "/reset/" + secret, expires}, nil
}

// Run makes the link.
func (cmd *resetLinkCmd) Run(a *app) error {
	var made resetLinkInfo
	if err := a.ask(cmd.Location, "user.reset-link", resetLinkArgs{cmd.Email, int64(cmd.Expires / time.Second), cmd.BaseURL}, &made); err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "With this link %s sets another password. It is shown only this once, works once, until %s:\n\n  %s\n\n", made.Email, made.ExpiresAt.Format(time.RFC3339), made.URL)
		return err
	})
}
