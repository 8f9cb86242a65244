package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/config"
)

type namespaceCmd struct {
	Create namespaceCreateCmd `cmd:"" help:"Make a namespace."`
	List   namespaceListCmd   `cmd:"" help:"List the namespaces."`
	Delete namespaceDeleteCmd `cmd:"" help:"End a namespace, with its tokens and memberships. Its slug is free again."`
}

type namespaceDeleteCmd struct {
	config.Location `embed:"" group:"settings"`
	Trash           config.Duration `default:"168h" group:"settings" help:"How long its databases can be brought back by hand, where no server runs; a server that runs has its own setting." placeholder:"TIME"`
	Slug            string          `arg:"" help:"The namespace's slug."`
	Force           bool            `help:"Also if it has databases: they go to the trash."`
}

// Validate refuses a time that is none.
func (cmd *namespaceDeleteCmd) Validate() error {
	if cmd.Trash.Duration < 0 {
		return errors.New("--trash must not be negative")
	}
	return nil
}

type namespaceDeleteArgs struct {
	Slug  string        `json:"slug"`
	Force bool          `json:"force"`
	Trash time.Duration `json:"trash"`
}

type namespaceDeleted struct {
	namespaceInfo
	Databases int `json:"databases"` // that went to the trash
}

type namespaceCreateCmd struct {
	config.Location `embed:"" group:"settings"`
	Slug            string `arg:"" help:"1 to 63 characters from a-z, 0-9 and -."`
}

type namespaceListCmd struct {
	config.Location `embed:"" group:"settings"`
}

// namespaceInfo is a namespace as it is printed.
type namespaceInfo struct {
	ID        string    `json:"id"`
	Slug      string    `json:"slug"`
	CreatedAt time.Time `json:"createdAt"`
}

type namespaceList struct {
	Namespaces []namespaceInfo `json:"namespaces"`
}

type namespaceArgs struct {
	Slug string `json:"slug"`
}

func createNamespace(ctx context.Context, c *ledgers, args namespaceArgs) (namespaceInfo, error) {
	ns, err := c.CreateNamespace(ctx, args.Slug)
	return infoOfNamespace(ns), err
}

func infoOfNamespace(ns catalog.Namespace) namespaceInfo {
	return namespaceInfo{ID: ns.ID, Slug: ns.Slug, CreatedAt: ns.CreatedAt}
}

func deleteNamespace(ctx context.Context, c *ledgers, args namespaceDeleteArgs) (namespaceDeleted, error) {
	ns, err := c.Namespace(args.Slug)
	if err != nil {
		return namespaceDeleted{}, fmt.Errorf("delete namespace %q: %w", args.Slug, err)
	}
	ended, err := c.deleteNamespace(ctx, catalog.Deletion{NamespaceID: ns.ID, Force: args.Force, Keep: args.Trash})
	return namespaceDeleted{infoOfNamespace(ns), len(ended)}, err
}

func listNamespaces(_ context.Context, c *ledgers, _ struct{}) (namespaceList, error) {
	list := namespaceList{Namespaces: []namespaceInfo{}}
	for _, ns := range c.Namespaces() {
		list.Namespaces = append(list.Namespaces, infoOfNamespace(ns))
	}
	return list, nil
}

// Run makes the namespace.
func (cmd *namespaceCreateCmd) Run(a *app) error {
	var made namespaceInfo
	if err := a.ask(cmd.Location, "namespace.create", namespaceArgs{cmd.Slug}, &made); err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Namespace %s made. Next: persqld token create --namespace %s\n", made.Slug, made.Slug)
		return err
	})
}

// Run deletes the namespace.
func (cmd *namespaceDeleteCmd) Run(a *app) error {
	var deleted namespaceDeleted
	if err := a.ask(cmd.Location, "namespace.delete", namespaceDeleteArgs{cmd.Slug, cmd.Force, cmd.Trash.Duration}, &deleted); err != nil {
		return err
	}
	return a.print(deleted, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Namespace %s is deleted; %d databases went with it.\n", deleted.Slug, deleted.Databases)
		return err
	})
}

// Run lists the namespaces.
func (cmd *namespaceListCmd) Run(a *app) error {
	var list namespaceList
	if err := a.ask(cmd.Location, "namespace.list", struct{}{}, &list); err != nil {
		return err
	}
	return a.print(list, func(w io.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "SLUG\tID\tCREATED")
		for _, ns := range list.Namespaces {
			fmt.Fprintf(table, "%s\t%s\t%s\n", ns.Slug, ns.ID, ns.CreatedAt.Format(time.RFC3339))
		}
		return table.Flush()
	})
}
