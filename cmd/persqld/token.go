package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/config"
)

type tokenCmd struct {
	Create tokenCreateCmd `cmd:"" help:"Make a token and print it, once."`
	List   tokenListCmd   `cmd:"" help:"List the tokens, without their secrets."`
	Revoke tokenRevokeCmd `cmd:"" help:"End a token; from the next request on it is refused."`
}

type tokenCreateCmd struct {
	config.Location `embed:"" group:"settings"`
	Namespace       string          `required:"" help:"Slug of the namespace." placeholder:"SLUG"`
	Role            string          `default:"admin" help:"admin, readwrite (or write) or readonly (or read)." placeholder:"ROLE"`
	Database        string          `help:"Slug of the only database that the token opens." placeholder:"SLUG"`
	TableScope      []string        `help:"The only tables and views that the token touches, with commas between them; all if left out." placeholder:"TABLE,…"`
	Claims          string          `help:"What policies of row-level security know of its bearer: a JSON object." placeholder:"JSON"`
	Name            string          `help:"A name to know it by." placeholder:"NAME"`
	Expires         config.Duration `help:"How long it works, for example 24h; for ever if left out." placeholder:"TIME"`
	Test            bool            `help:"Make a psql_test_ token, which sees only databases that test tokens made."`
}

// Validate refuses a token that would be born dead.
func (cmd *tokenCreateCmd) Validate() error {
	if cmd.Expires.Duration != 0 && cmd.Expires.Duration < time.Second {
		return errors.New("--expires must be at least 1s")
	}
	return nil
}

type tokenListCmd struct {
	config.Location `embed:"" group:"settings"`
	Namespace       string `help:"Slug of a namespace; all if left out." placeholder:"SLUG"`
}

type tokenRevokeCmd struct {
	config.Location `embed:"" group:"settings"`
	ID              string `arg:"" help:"The token's id, as token list shows it."`
}

// tokenInfo is a token as it is printed; Token is there only where it was just made.
type tokenInfo struct {
	ID         string          `json:"id"`
	Token      string          `json:"token,omitempty"`
	Hint       string          `json:"hint"`
	Name       string          `json:"name"`
	Namespace  string          `json:"namespace"`
	Role       string          `json:"role"`
	Test       bool            `json:"test"`
	TableScope []string        `json:"tableScope"`
	Claims     json.RawMessage `json:"claims,omitempty"`
	DatabaseID string          `json:"databaseId,omitempty"`
	Database   string          `json:"database,omitempty"` // its slug, while it is there
	ExpiresAt  *time.Time      `json:"expiresAt"`
	CreatedAt  time.Time       `json:"createdAt"`
	RevokedAt  *time.Time      `json:"revokedAt"`
}

type tokenList struct {
	Tokens []tokenInfo `json:"tokens"`
}

type tokenCreateArgs struct {
	Namespace  string        `json:"namespace"`
	Role       string        `json:"role"`
	TableScope []string      `json:"tableScope"`
	Claims     string        `json:"claims"`
	Database   string        `json:"database"`
	Name       string        `json:"name"`
	Expires    time.Duration `json:"expires"`
	Test       bool          `json:"test"`
}

type tokenListArgs struct {
	Namespace string `json:"namespace"`
}

type tokenRevokeArgs struct {
	ID string `json:"id"`
}

func infoOf(c *ledgers, t *catalog.Token) tokenInfo {
	info := tokenInfo{ID: t.ID, Hint: t.Hint, Name: t.Name, Namespace: t.NamespaceSlug, Role: t.Role, Test: t.Test, TableScope: t.TableScope,
		DatabaseID: t.Database, CreatedAt: t.CreatedAt, ExpiresAt: optional(t.ExpiresAt), RevokedAt: optional(t.RevokedAt)}
	if t.Claims != nil {
		info.Claims = json.RawMessage(t.Claims.JSON)
	}
	if d, err := c.DatabaseByID(t.Database); err == nil {
		info.Database = d.Slug
	}
	return info
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func createToken(ctx context.Context, c *ledgers, args tokenCreateArgs) (tokenInfo, error) {
	ns, err := c.Namespace(args.Namespace)
	if err != nil {
		return tokenInfo{}, fmt.Errorf("create token in %q: %w", args.Namespace, err)
	}
	n := catalog.NewToken{NamespaceID: ns.ID, Name: args.Name, Role: args.Role, TableScope: args.TableScope, Test: args.Test}
	if args.Claims != "" {
		n.Claims = []byte(args.Claims)
	}
	if args.Database != "" {
		d, err := c.Database(ns.ID, args.Database)
		if err != nil {
			return tokenInfo{}, fmt.Errorf("create token for %s/%s: %w", args.Namespace, args.Database, err)
		}
		n.Database = d.ID
	}
	if args.Expires != 0 {
		n.ExpiresAt = time.Now().Add(args.Expires)
	}
	t, secret, err := c.CreateToken(ctx, n)
	if err != nil {
		return tokenInfo{}, err
	}
	info := infoOf(c, t)
	info.Token = secret
	return info, nil
}

func listTokens(ctx context.Context, c *ledgers, args tokenListArgs) (tokenList, error) {
	namespaceID := ""
	if args.Namespace != "" {
		ns, err := c.Namespace(args.Namespace)
		if err != nil {
			return tokenList{}, fmt.Errorf("list tokens of %q: %w", args.Namespace, err)
		}
		namespaceID = ns.ID
	}
	tokens, err := c.ListTokens(ctx, catalog.TokenQuery{NamespaceID: namespaceID})
	if err != nil {
		return tokenList{}, err
	}
	list := tokenList{Tokens: make([]tokenInfo, 0, len(tokens))}
	for _, t := range tokens {
		list.Tokens = append(list.Tokens, infoOf(c, t))
	}
	return list, nil
}

func revokeToken(ctx context.Context, c *ledgers, args tokenRevokeArgs) (tokenInfo, error) {
	t, err := c.RevokeToken(ctx, args.ID)
	if err != nil {
		return tokenInfo{}, err
	}
	return infoOf(c, t), nil
}

// Run makes the token.
func (cmd *tokenCreateCmd) Run(a *app) error {
	args := tokenCreateArgs{Namespace: cmd.Namespace, Role: cmd.Role, TableScope: cmd.TableScope, Claims: cmd.Claims, Database: cmd.Database, Name: cmd.Name,
		Expires: cmd.Expires.Duration, Test: cmd.Test}
	var made tokenInfo
	if err := a.ask(cmd.Location, "token.create", args, &made); err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) error {
		// The token alone on stdout, so that a script can take it as it is.
		fmt.Fprintf(a.stderr, "Token %s made. It is shown only this once:\n", made.ID)
		_, err := fmt.Fprintln(w, made.Token)
		return err
	})
}

// Run lists the tokens.
func (cmd *tokenListCmd) Run(a *app) error {
	var list tokenList
	if err := a.ask(cmd.Location, "token.list", tokenListArgs{cmd.Namespace}, &list); err != nil {
		return err
	}
	return a.print(list, func(w io.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tTOKEN\tNAMESPACE\tNAME\tROLE\tDATABASE\tTABLES\tSTATE")
		for _, t := range list.Tokens {
			database := t.Database
			if database == "" && t.DatabaseID != "" {
				database = "(deleted)"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Hint, t.Namespace, t.Name, t.Role, database, strings.Join(t.TableScope, ","), state(t, time.Now()))
		}
		return table.Flush()
	})
}

func state(t tokenInfo, now time.Time) string {
	switch {
	case t.RevokedAt != nil:
		return "revoked"
	case t.ExpiresAt == nil:
		return "works"
	case now.Before(*t.ExpiresAt):
		return "works until " + t.ExpiresAt.Format(time.RFC3339)
	}
	return "expired"
}

// Run revokes the token.
func (cmd *tokenRevokeCmd) Run(a *app) error {
	var revoked tokenInfo
	if err := a.ask(cmd.Location, "token.revoke", tokenRevokeArgs{cmd.ID}, &revoked); err != nil {
		return err
	}
	return a.print(revoked, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Token %s (%s) is revoked.\n", revoked.ID, revoked.Hint)
		return err
	})
}
