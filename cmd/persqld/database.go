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

type databaseCmd struct {
	List     databaseListCmd     `cmd:"" help:"List the databases, or with --deleted those that can be brought back."`
	Undelete databaseUndeleteCmd `cmd:"" help:"Bring a deleted database back."`
}

type databaseListCmd struct {
	config.Location `embed:"" group:"settings"`
	Namespace       string `help:"Slug of a namespace; all if left out." placeholder:"SLUG"`
	Deleted         bool   `help:"List the trash: deleted databases whose time isn't over."`
}

type databaseUndeleteCmd struct {
	config.Location `embed:"" group:"settings"`
	ID              string `arg:"" help:"The database's id, as database list --deleted shows it."`
	Slug            string `help:"A new slug; the old one if left out." placeholder:"SLUG"`
	Namespace       string `help:"Slug of the namespace that gets it; the old one if left out, which must be there still." placeholder:"SLUG"`
}

// databaseInfo is a database as it is printed; the times of the trash are there for one that is in it.
type databaseInfo struct {
	ID              string     `json:"id"`
	Namespace       string     `json:"namespace"`
	Slug            string     `json:"slug"`
	Name            string     `json:"name"`
	Status          string     `json:"status"`
	Region          string     `json:"region"`
	Test            bool       `json:"test"`
	CreatedAt       time.Time  `json:"createdAt"`
	DeletedAt       *time.Time `json:"deletedAt,omitempty"`
	RestorableUntil *time.Time `json:"restorableUntil,omitempty"`
	// NamespaceDeleted says that the namespace is gone: undelete takes --namespace then.
	NamespaceDeleted bool `json:"namespaceDeleted,omitempty"`
}

type databaseList struct {
	Databases []databaseInfo `json:"databases"`
}

type databaseListArgs struct {
	Namespace string `json:"namespace"`
	Deleted   bool   `json:"deleted"`
}

type databaseUndeleteArgs struct {
	ID        string `json:"id"`
	Slug      string `json:"slug"`
	Namespace string `json:"namespace"`
}

// errNoTrashed is returned for an id that the trash doesn't hold.
var errNoTrashed = errors.New("there is no deleted database of this id")

func databaseInfoOf(ns string, d *catalog.Database) databaseInfo {
	return databaseInfo{ID: d.ID, Namespace: ns, Slug: d.Slug, Name: d.Name, Status: d.Status, Region: d.Region, Test: d.Test, CreatedAt: d.CreatedAt}
}

func listDatabases(_ context.Context, c *ledgers, args databaseListArgs) (databaseList, error) {
	namespaces := c.Namespaces()
	if args.Namespace != "" {
		ns, err := c.Namespace(args.Namespace)
		if err != nil {
			return databaseList{}, fmt.Errorf("list databases of %q: %w", args.Namespace, err)
		}
		namespaces = []catalog.Namespace{ns}
	}
	list := databaseList{Databases: []databaseInfo{}}
	gone := map[string]bool{}
	if args.Deleted && args.Namespace == "" {
		for _, ns := range c.DeletedNamespaces() {
			gone[ns.ID] = true
			namespaces = append(namespaces, ns)
		}
	}
	for _, ns := range namespaces {
		for page, more := 1, true; more; page++ {
			more = false
			at := catalog.Page{Number: page, Size: catalog.MaxPageSize}
			if !args.Deleted {
				for _, d := range c.Databases(ns.ID, at) {
					list.Databases = append(list.Databases, databaseInfoOf(ns.Slug, d))
					more = true
				}
				continue
			}
			for _, d := range c.Trash(ns.ID, at) {
				info := databaseInfoOf(ns.Slug, &d.Database)
				info.NamespaceDeleted = gone[ns.ID]
				info.Status, info.DeletedAt, info.RestorableUntil = catalog.StatusDeleting, optional(d.DeletedAt), optional(d.RestorableUntil)
				list.Databases = append(list.Databases, info)
				more = true
			}
		}
	}
	return list, nil
}

func undeleteDatabase(ctx context.Context, c *ledgers, args databaseUndeleteArgs) (databaseInfo, error) {
	into := ""
	if args.Namespace != "" {
		ns, err := c.Namespace(args.Namespace)
		if err != nil {
			return databaseInfo{}, fmt.Errorf("undelete database into %q: %w", args.Namespace, err)
		}
		into = ns.ID
	}
	d, err := c.undelete(ctx, args.ID, args.Slug, into)
	if errors.Is(err, catalog.ErrDatabaseNotFound) {
		return databaseInfo{}, fmt.Errorf("undelete database %s: %w", args.ID, errNoTrashed)
	}
	if errors.Is(err, catalog.ErrNamespaceNotFound) && into == "" {
		return databaseInfo{}, fmt.Errorf("the namespace of database %s is deleted; give another one with --namespace: %w", args.ID, err)
	}
	if err != nil {
		return databaseInfo{}, err
	}
	info := databaseInfoOf("", d)
	for _, ns := range c.Namespaces() {
		if ns.ID == d.NamespaceID {
			info.Namespace = ns.Slug
		}
	}
	return info, nil
}

// Run lists the databases.
func (cmd *databaseListCmd) Run(a *app) error {
	var list databaseList
	if err := a.ask(cmd.Location, "database.list", databaseListArgs{cmd.Namespace, cmd.Deleted}, &list); err != nil {
		return err
	}
	return a.print(list, func(w io.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		if cmd.Deleted {
			fmt.Fprintln(table, "DATABASE\tID\tNAME\tDELETED\tRESTORABLE UNTIL")
		} else {
			fmt.Fprintln(table, "DATABASE\tID\tNAME\tREGION\tCREATED")
		}
		for _, d := range list.Databases {
			if cmd.Deleted {
				if d.NamespaceDeleted {
					d.Namespace += " (deleted)"
				}
				fmt.Fprintf(table, "%s/%s\t%s\t%s\t%s\t%s\n", d.Namespace, d.Slug, d.ID, d.Name, d.DeletedAt.Format(time.RFC3339), d.RestorableUntil.Format(time.RFC3339))
			} else {
				fmt.Fprintf(table, "%s/%s\t%s\t%s\t%s\t%s\n", d.Namespace, d.Slug, d.ID, d.Name, d.Region, d.CreatedAt.Format(time.RFC3339))
			}
		}
		return table.Flush()
	})
}

// Run brings the database back.
func (cmd *databaseUndeleteCmd) Run(a *app) error {
	var back databaseInfo
	if err := a.ask(cmd.Location, "database.undelete", databaseUndeleteArgs{cmd.ID, cmd.Slug, cmd.Namespace}, &back); err != nil {
		return err
	}
	return a.print(back, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Database %s is back as %s/%s.\n", back.ID, back.Namespace, back.Slug)
		return err
	})
}
