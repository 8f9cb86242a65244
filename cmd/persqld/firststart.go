package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/password"
)

// firstStart is what the first start prints: ways in that are shown only once.
type firstStart struct {
	Namespace string `json:"namespace"`
	Token     string `json:"token,omitempty"`
	SignUpURL string `json:"signUpURL,omitempty"`
	BaseURL   string `json:"baseURL"`
}

// welcome prints the generated token with a first query to paste, and the sign-up link.
func (f *firstStart) welcome(w io.Writer) error {
	text := ""
	if f.Token != "" {
		text += `
This is the first start. The admin token of namespace {ns}, shown only this once:

  {token}

A first query, ready to paste:

  curl -s {url}/v1/db/{ns}/hello/query -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{"sql":"SELECT 40 + 2 AS answer"}'
`
	}
	if f.SignUpURL != "" {
		text += `
To sign in as the owner of namespace {ns}, make an account with this link. It is shown only this once, works once, for 7 days:

  {signup}
`
	}
	_, err := fmt.Fprint(w, strings.NewReplacer("{url}", f.BaseURL, "{ns}", f.Namespace, "{token}", f.Token, "{signup}", f.SignUpURL).Replace(text+"\n"))
	return err
}

// ensureAdmin makes the namespace where it is missing and sees to it that somebody can get in: programs with the operator's own
// token if one is given, else with a generated one if the namespace never had a token; people with the account of the settings or,
// at the first start of all, with a link to make one.
func (cmd *serveCmd) ensureAdmin(ctx context.Context, c *catalog.Catalog, passwords *password.Hasher) (ns catalog.Namespace, first firstStart, err error) {
	empty := len(c.Namespaces()) == 0 && len(c.Users()) == 0
	ns, err = c.Namespace(cmd.Namespace)
	if errors.Is(err, catalog.ErrNamespaceNotFound) {
		ns, err = c.CreateNamespace(ctx, cmd.Namespace)
	}
	if err != nil {
		return ns, first, err
	}
	first = firstStart{Namespace: ns.Slug, BaseURL: cmd.BaseURL}
	if cmd.AdminEmail != "" {
		err = ensureUser(ctx, c, passwords, ns, cmd.AdminEmail, cmd.AdminPassword)
	} else if empty && cmd.SignUp != api.SignUpClosed {
		first.SignUpURL, err = api.FirstInvitation(ctx, c, ns, cmd.BaseURL, time.Now())
	}
	if err != nil {
		return ns, first, err
	}
	if cmd.Token != "" {
		_, err = c.EnsureOperatorToken(ctx, ns.ID, cmd.Token)
		return ns, first, err
	}
	has, err := c.HasTokens(ctx, ns.ID)
	if err != nil || has {
		return ns, first, err
	}
	_, first.Token, err = c.CreateToken(ctx, catalog.NewToken{NamespaceID: ns.ID, Name: "first start"})
	return ns, first, err
}

// ensureUser makes the user of the settings an owner of the namespace, unless there is such a user: a password that was reset, or
// a membership that was taken, must not come back by a restart.
func ensureUser(ctx context.Context, c *catalog.Catalog, passwords *password.Hasher, ns catalog.Namespace, email, secret string) error {
	folded, err := catalog.FoldEmail(email)
	if err != nil {
		return err
	}
	if _, err := c.UserByEmail(folded); err == nil {
		return nil
	}
	hash, err := passwords.Hash(ctx, secret)
	if err != nil {
		return err
	}
	_, err = c.CreateUser(ctx, catalog.NewUser{Email: folded, PasswordHash: hash, NamespaceID: ns.ID, Role: catalog.MemberOwner})
	return err
}
