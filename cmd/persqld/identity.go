package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/config"
)

type identityCmd struct {
	Bind   identityBindCmd   `cmd:"" help:"Let a machine identity, such as a repository's CI jobs, into a namespace."`
	Unbind identityUnbindCmd `cmd:"" help:"Let it in no more. The tokens that it got end; its database stays."`
	Forget identityForgetCmd `cmd:"" help:"Part an identity from its own namespace: the tokens that it got end, and whoever has the name now gets another namespace."`
	List   identityListCmd   `cmd:"" help:"List what is bound, and the identities that have a namespace of their own."`
}

type identityBindCmd struct {
	config.Location `embed:"" group:"settings"`
	identityArgs    `embed:""`
	StableID        string `name:"id" help:"The repository's id at its issuer (of GitHub, repository_id); that of the first who uses the binding if left out." placeholder:"ID"`
}

type identityUnbindCmd struct {
	config.Location `embed:"" group:"settings"`
	identityArgs    `embed:""`
}

// identityArgs name a binding.
type identityArgs struct {
	Namespace string `required:"" help:"Slug of the namespace." placeholder:"SLUG"`
	Identity  string `required:"" help:"The identity, for example owner/repo." placeholder:"NAME"`
	Issuer    string `help:"Its issuer; if left out GitHub Actions or one of PERSQLD_TRUSTED_ISSUERS, whichever uses the binding first." placeholder:"URL"`
}

type identityForgetCmd struct {
	config.Location `embed:"" group:"settings"`
	Issuer          string `required:"" help:"Its issuer." placeholder:"URL"`
	Identity        string `required:"" help:"The identity, for example owner/repo." placeholder:"NAME"`
}

type identityListCmd struct {
	config.Location `embed:"" group:"settings"`
}

type bindArgs struct {
	Namespace string `json:"namespace"`
	Identity  string `json:"identity"`
	Issuer    string `json:"issuer"`
	StableID  string `json:"stableId"`
}

// bindingInfo is a binding as it is printed.
type bindingInfo struct {
	ID          string    `json:"id"`
	Namespace   string    `json:"namespace"`
	Identity    string    `json:"identity"`
	Issuer      *string   `json:"issuer"`
	StableID    *string   `json:"stableId"`
	Database    *string   `json:"database"`
	CreatedAt   time.Time `json:"createdAt"`
	TokensEnded *int      `json:"tokensEnded,omitempty"`
}

// ownedInfo is an identity that has a namespace of its own, as it is printed.
type ownedInfo struct {
	ID          string    `json:"id"`
	Namespace   *string   `json:"namespace"` // null where it is gone
	Identity    string    `json:"identity"`
	Issuer      string    `json:"issuer"`
	StableID    *string   `json:"stableId"`
	CreatedAt   time.Time `json:"createdAt"`
	TokensEnded *int      `json:"tokensEnded,omitempty"`
}

type identityList struct {
	Bindings   []bindingInfo `json:"bindings"`
	Identities []ownedInfo   `json:"identities"`
}

func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func infoOfBinding(c *ledgers, b *catalog.Binding) bindingInfo {
	info := bindingInfo{ID: b.ID, Namespace: b.NamespaceSlug, Identity: b.Name, Issuer: textOrNull(b.Issuer), StableID: textOrNull(b.StableID), CreatedAt: b.CreatedAt}
	if d, err := c.DatabaseByID(b.DatabaseID); b.DatabaseID != "" && err == nil {
		info.Database = &d.Slug
	}
	return info
}

func infoOfIdentity(c *ledgers, id *catalog.Identity) ownedInfo {
	info := ownedInfo{ID: id.ID, Identity: id.Name, Issuer: id.Issuer, StableID: textOrNull(id.StableID), CreatedAt: id.CreatedAt}
	for _, ns := range c.Namespaces() {
		if ns.ID == id.NamespaceID {
			info.Namespace = &ns.Slug
		}
	}
	return info
}

func bindIdentity(ctx context.Context, c *ledgers, args bindArgs) (bindingInfo, error) {
	ns, err := c.Namespace(args.Namespace)
	if err != nil {
		return bindingInfo{}, fmt.Errorf("bind identity in %q: %w", args.Namespace, err)
	}
	b, _, err := c.Bind(ctx, catalog.NewBinding{NamespaceID: ns.ID, Issuer: args.Issuer, Name: args.Identity, StableID: args.StableID})
	if err != nil {
		return bindingInfo{}, err
	}
	return infoOfBinding(c, b), nil
}

func unbindIdentity(ctx context.Context, c *ledgers, args bindArgs) (bindingInfo, error) {
	ns, err := c.Namespace(args.Namespace)
	if err != nil {
		return bindingInfo{}, fmt.Errorf("unbind identity in %q: %w", args.Namespace, err)
	}
	b, err := c.BindingNamed(ctx, ns.ID, args.Issuer, args.Identity)
	if err != nil {
		return bindingInfo{}, fmt.Errorf("unbind %q: %w", args.Identity, err)
	}
	info := infoOfBinding(c, b)
	_, ended, err := c.Unbind(ctx, ns.ID, b.ID)
	info.TokensEnded = &ended
	return info, err
}

func forgetIdentity(ctx context.Context, c *ledgers, args bindArgs) (ownedInfo, error) {
	id, ended, err := c.ForgetIdentity(ctx, args.Issuer, args.Identity)
	if err != nil {
		return ownedInfo{}, err
	}
	info := infoOfIdentity(c, id)
	info.TokensEnded = &ended
	return info, nil
}

func listIdentities(ctx context.Context, c *ledgers, _ struct{}) (identityList, error) {
	list := identityList{Bindings: []bindingInfo{}, Identities: []ownedInfo{}}
	bindings, err := c.Bindings(ctx, "")
	if err != nil {
		return list, err
	}
	for _, b := range bindings {
		list.Bindings = append(list.Bindings, infoOfBinding(c, b))
	}
	identities, err := c.Identities(ctx)
	if err != nil {
		return list, err
	}
	slugs := map[string]string{}
	for _, ns := range c.Namespaces() {
		slugs[ns.ID] = ns.Slug
	}
	for _, id := range identities {
		info := ownedInfo{ID: id.ID, Namespace: textOrNull(slugs[id.NamespaceID]), Identity: id.Name, Issuer: id.Issuer, StableID: textOrNull(id.StableID), CreatedAt: id.CreatedAt}
		list.Identities = append(list.Identities, info)
	}
	return list, nil
}

// Run binds the identity.
func (cmd *identityBindCmd) Run(a *app) error {
	var made bindingInfo
	if err := a.ask(cmd.Location, "identity.bind", bindArgs{cmd.Namespace, cmd.Identity, cmd.Issuer, cmd.StableID}, &made); err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s is let into %s (%s). Its jobs call POST /v1/actions/connect.\n", made.Identity, made.Namespace, made.ID)
		return err
	})
}

// Run ends the binding.
func (cmd *identityUnbindCmd) Run(a *app) error {
	var ended bindingInfo
	if err := a.ask(cmd.Location, "identity.unbind", bindArgs{Namespace: cmd.Namespace, Identity: cmd.Identity, Issuer: cmd.Issuer}, &ended); err != nil {
		return err
	}
	return a.print(ended, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s is let into %s no more; %d tokens ended.\n", ended.Identity, ended.Namespace, *ended.TokensEnded)
		return err
	})
}

// Run forgets the identity.
func (cmd *identityForgetCmd) Run(a *app) error {
	var gone ownedInfo
	if err := a.ask(cmd.Location, "identity.forget", bindArgs{Identity: cmd.Identity, Issuer: cmd.Issuer}, &gone); err != nil {
		return err
	}
	return a.print(gone, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s has no namespace any more; %d tokens ended. The namespace stays.\n", gone.Identity, *gone.TokensEnded)
		return err
	})
}

// Run lists bindings and identities.
func (cmd *identityListCmd) Run(a *app) error {
	var list identityList
	if err := a.ask(cmd.Location, "identity.list", struct{}{}, &list); err != nil {
		return err
	}
	return a.print(list, func(w io.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "KIND\tIDENTITY\tNAMESPACE\tDATABASE\tISSUER\tID\tCREATED")
		text := func(s *string, otherwise string) string {
			if s == nil {
				return otherwise
			}
			return *s
		}
		for _, b := range list.Bindings {
			fmt.Fprintf(table, "bound\t%s\t%s\t%s\t%s\t%s\t%s\n", b.Identity, b.Namespace, text(b.Database, "(at the first use)"), text(b.Issuer, "(of the first use)"), text(b.StableID, "-"), b.CreatedAt.Format(time.RFC3339))
		}
		for _, id := range list.Identities {
			fmt.Fprintf(table, "own\t%s\t%s\tmain\t%s\t%s\t%s\n", id.Identity, text(id.Namespace, "(deleted)"), id.Issuer, text(id.StableID, "-"), id.CreatedAt.Format(time.RFC3339))
		}
		return table.Flush()
	})
}
