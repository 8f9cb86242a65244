package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/persqld/persqld/internal/config"
)

type namespaceCmd struct {
	Create namespaceCreateCmd `cmd:"" help:"Make a namespace."`
	List   namespaceListCmd   `cmd:"" help:"List the namespaces."`
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

func createNamespace(ctx context.Context, c *books, args namespaceArgs) (namespaceInfo, error) {
	ns, err := c.CreateNamespace(ctx, args.Slug)
	return namespaceInfo(ns), err
}

func listNamespaces(_ context.Context, c *books, _ struct{}) (namespaceList, error) {
	list := namespaceList{Namespaces: []namespaceInfo{}}
	for _, ns := range c.Namespaces() {
		list.Namespaces = append(list.Namespaces, namespaceInfo(ns))
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
