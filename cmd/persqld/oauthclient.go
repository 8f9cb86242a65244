package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/config"
)

type oauthClientCmd struct {
	Create oauthClientCreateCmd `cmd:"" help:"Make an OAuth app and print its client id and, once, its secret."`
	List   oauthClientListCmd   `cmd:"" help:"List the OAuth apps of namespaces, without their secrets."`
	Delete oauthClientDeleteCmd `cmd:"" help:"End an OAuth app, with the tokens that it got."`
	Rotate oauthClientRotateCmd `cmd:"" name:"rotate-secret" help:"Give an OAuth app a new secret. The former one works on for a while."`
}

type oauthClientCreateCmd struct {
	config.Location `embed:"" group:"settings"`
	Namespace       string   `required:"" help:"Slug of the namespace whose app it is." placeholder:"SLUG"`
	Name            string   `required:"" help:"What people see before they let it in." placeholder:"NAME"`
	RedirectURI     []string `name:"redirect-uri" required:"" sep:"none" help:"Where people are sent back to, compared exactly; may be given several times." placeholder:"URI"`
	Type            string   `default:"confidential" enum:"confidential,public" help:"confidential (with a secret) or public (without, for apps on people's own machines)." placeholder:"TYPE"`
	RequirePKCE     bool     `name:"require-pkce" help:"Require PKCE also of a confidential app."`
}

type oauthClientListCmd struct {
	config.Location `embed:"" group:"settings"`
	Namespace       string `help:"Slug of a namespace; all if left out." placeholder:"SLUG"`
}

type oauthClientDeleteCmd struct {
	config.Location `embed:"" group:"settings"`
	ID              string `arg:"" help:"The client id, psqlrp_…."`
}

type oauthClientRotateCmd struct {
	config.Location `embed:"" group:"settings"`
	ID              string          `arg:"" help:"The client id, psqlrp_…."`
	Overlap         config.Duration `default:"24h" help:"How long the former secret works on; 0s ends it at once." placeholder:"TIME"`
}

// maxOverlap is how long a former secret may work on.
const maxOverlap = 30 * 24 * time.Hour

// Validate refuses an overlap out of its range.
func (cmd *oauthClientRotateCmd) Validate() error {
	if d := cmd.Overlap.Duration; d < 0 || d > maxOverlap {
		return errors.New("--overlap must be from 0s to 720h")
	}
	return nil
}

// oauthClientInfo is a client as it is printed, in OAuth's own words; its secret is there only where it was just made.
type oauthClientInfo struct {
	ID           string            `json:"client_id"`
	Secret       string            `json:"client_secret,omitempty"`
	Name         string            `json:"name"`
	Namespace    string            `json:"namespace"`
	Type         string            `json:"type"`
	RedirectURIs []string          `json:"redirect_uris"`
	RequirePKCE  bool              `json:"require_pkce"`
	Secrets      []oauthSecretInfo `json:"secrets"`
	CreatedAt    time.Time         `json:"created_at"`
	LastUsedAt   *time.Time        `json:"last_used_at"`
}

type oauthSecretInfo struct {
	ID        string     `json:"id"`
	Hint      string     `json:"hint"`
	CreatedAt time.Time  `json:"created_at"`
	EndsAt    *time.Time `json:"ends_at"`
}

type oauthClientList struct {
	Clients []oauthClientInfo `json:"clients"`
}

type oauthClientArgs struct {
	ID           string        `json:"id"`
	Namespace    string        `json:"namespace"`
	Name         string        `json:"name"`
	RedirectURIs []string      `json:"redirectUris"`
	Public       bool          `json:"public"`
	RequirePKCE  bool          `json:"requirePkce"`
	Overlap      time.Duration `json:"overlap"`
}

// defaultOAuthApps is how many apps a namespace may have without a server: the setting's default.
const defaultOAuthApps = 100

func infoOfOAuthClient(c *ledgers, cl *catalog.OAuthClient, secret string) oauthClientInfo {
	info := oauthClientInfo{ID: cl.ID, Secret: secret, Name: cl.Name, Type: "confidential", RedirectURIs: cl.RedirectURIs, RequirePKCE: cl.RequirePKCE || cl.Public, Secrets: []oauthSecretInfo{},
		CreatedAt: cl.CreatedAt, LastUsedAt: optional(cl.UsedAt)}
	if cl.Public {
		info.Type = "public"
	}
	if ns, err := c.NamespaceByID(cl.NamespaceID); err == nil {
		info.Namespace = ns.Slug
	}
	for _, s := range c.LivingSecrets(cl) {
		info.Secrets = append(info.Secrets, oauthSecretInfo{s.ID, s.Hint, s.CreatedAt, optional(s.EndsAt)})
	}
	return info
}

func createOAuthClient(ctx context.Context, c *ledgers, args oauthClientArgs) (oauthClientInfo, error) {
	ns, err := c.Namespace(args.Namespace)
	if err != nil {
		return oauthClientInfo{}, fmt.Errorf("create OAuth client in %q: %w", args.Namespace, err)
	}
	cl, secret, err := c.CreateOAuthClient(ctx, catalog.NewOAuthClient{NamespaceID: ns.ID, Name: args.Name, Public: args.Public, RedirectURIs: args.RedirectURIs, RequirePKCE: args.RequirePKCE,
		Most: cmp.Or(c.oauthApps, defaultOAuthApps)})
	if err != nil {
		return oauthClientInfo{}, err
	}
	return infoOfOAuthClient(c, cl, secret), nil
}

func listOAuthClients(_ context.Context, c *ledgers, args oauthClientArgs) (oauthClientList, error) {
	list := oauthClientList{Clients: []oauthClientInfo{}}
	all := c.OAuthApps()
	if args.Namespace != "" {
		ns, err := c.Namespace(args.Namespace)
		if err != nil {
			return list, fmt.Errorf("list OAuth clients of %q: %w", args.Namespace, err)
		}
		all = c.OAuthClients(ns.ID)
	}
	for _, cl := range all {
		list.Clients = append(list.Clients, infoOfOAuthClient(c, cl, ""))
	}
	return list, nil
}

// ownedOAuthClient is the client of an id, for the operator, who may manage those of all namespaces.
func ownedOAuthClient(c *ledgers, id string) (*catalog.OAuthClient, error) {
	cl, err := c.OAuthClient(id)
	if err != nil {
		return nil, fmt.Errorf("OAuth client %q: %w", id, err)
	}
	return cl, nil
}

func deleteOAuthClient(ctx context.Context, c *ledgers, args oauthClientArgs) (oauthClientInfo, error) {
	cl, err := ownedOAuthClient(c, args.ID)
	if err != nil {
		return oauthClientInfo{}, err
	}
	info := infoOfOAuthClient(c, cl, "")
	_, err = c.DeleteOAuthClient(ctx, cl.NamespaceID, cl.ID)
	return info, err
}

func rotateOAuthClient(ctx context.Context, c *ledgers, args oauthClientArgs) (oauthClientInfo, error) {
	cl, err := ownedOAuthClient(c, args.ID)
	if err != nil {
		return oauthClientInfo{}, err
	}
	cl, secret, err := c.RotateOAuthClientSecret(ctx, cl.NamespaceID, cl.ID, args.Overlap)
	if err != nil {
		return oauthClientInfo{}, err
	}
	return infoOfOAuthClient(c, cl, secret), nil
}

// Run makes the client.
func (cmd *oauthClientCreateCmd) Run(a *app) error {
	var made oauthClientInfo
	args := oauthClientArgs{Namespace: cmd.Namespace, Name: cmd.Name, RedirectURIs: cmd.RedirectURI, Public: cmd.Type == "public", RequirePKCE: cmd.RequirePKCE}
	if err := a.ask(cmd.Location, "oauth-client.create", args, &made); err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) error { return a.printOAuthClient(w, made) })
}

// printOAuthClient prints a client's id and, if it was just made, its secret.
func (a *app) printOAuthClient(w io.Writer, made oauthClientInfo) error {
	if made.Secret != "" {
		fmt.Fprintln(a.stderr, "The client secret is shown only this once.")
	}
	_, err := fmt.Fprintf(w, "client_id:     %s\n", made.ID)
	if made.Secret != "" {
		_, err = fmt.Fprintf(w, "client_secret: %s\n", made.Secret)
	}
	return err
}

// Run lists the clients.
func (cmd *oauthClientListCmd) Run(a *app) error {
	var list oauthClientList
	if err := a.ask(cmd.Location, "oauth-client.list", oauthClientArgs{Namespace: cmd.Namespace}, &list); err != nil {
		return err
	}
	return a.print(list, func(w io.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "CLIENT ID\tNAMESPACE\tNAME\tTYPE\tSECRETS\tREDIRECT URIS")
		for _, cl := range list.Clients {
			hints := []string{}
			for _, s := range cl.Secrets {
				hint := s.Hint
				if s.EndsAt != nil {
					hint += " until " + s.EndsAt.Format(time.RFC3339)
				}
				hints = append(hints, hint)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", cl.ID, cl.Namespace, cl.Name, cl.Type, strings.Join(hints, ", "), strings.Join(cl.RedirectURIs, " "))
		}
		return table.Flush()
	})
}

// Run deletes the client.
func (cmd *oauthClientDeleteCmd) Run(a *app) error {
	var gone oauthClientInfo
	if err := a.ask(cmd.Location, "oauth-client.delete", oauthClientArgs{ID: cmd.ID}, &gone); err != nil {
		return err
	}
	return a.print(gone, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "OAuth app %s (%s) is gone, with the tokens that it got.\n", gone.ID, gone.Name)
		return err
	})
}

// Run rotates the secret.
func (cmd *oauthClientRotateCmd) Run(a *app) error {
	var rotated oauthClientInfo
	if err := a.ask(cmd.Location, "oauth-client.rotate-secret", oauthClientArgs{ID: cmd.ID, Overlap: cmd.Overlap.Duration}, &rotated); err != nil {
		return err
	}
	return a.print(rotated, func(w io.Writer) error { return a.printOAuthClient(w, rotated) })
}
