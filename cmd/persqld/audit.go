package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/config"
)

type auditCmd struct {
	config.Location `embed:"" group:"settings"`
	Namespace       string `help:"Slug of a namespace; left out, everything: users and sessions, and namespaces that are gone, too." placeholder:"SLUG"`
	Action          string `help:"Only this action, for example session.refused." placeholder:"ACTION"`
	Before          string `help:"Only entries before the one of this id." placeholder:"ID"`
	Limit           int    `default:"100" help:"Entries at most, 1 to 100,000." placeholder:"N"`
}

// Validate refuses a limit that is none.
func (cmd *auditCmd) Validate() error {
	if cmd.Limit < 1 || cmd.Limit > 100_000 {
		return errors.New("--limit must be 1 to 100000")
	}
	return nil
}

type auditArgs struct {
	Namespace string `json:"namespace"`
	Action    string `json:"action"`
	Before    string `json:"before"`
	Limit     int    `json:"limit"`
}

// auditInfo is an entry as it is printed.
type auditInfo struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
	// NamespaceID is empty for what is of none.
	NamespaceID string         `json:"namespaceId,omitempty"`
	Action      string         `json:"action"`
	Actor       auditParty     `json:"actor"`
	Address     string         `json:"address,omitempty"`
	Target      auditParty     `json:"target"`
	Metadata    map[string]any `json:"metadata"`
}

type auditParty struct {
	Type string `json:"type"`
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

type auditList struct {
	Entries []auditInfo `json:"entries"`
}

func readAudit(ctx context.Context, c *ledgers, args auditArgs) (auditList, error) {
	list := auditList{Entries: []auditInfo{}}
	q := catalog.AuditQuery{All: args.Namespace == "", Action: args.Action, Before: args.Before, Limit: args.Limit}
	if args.Namespace != "" {
		ns, err := c.Namespace(args.Namespace)
		if err != nil {
			return list, fmt.Errorf("read audit log of %q: %w", args.Namespace, err)
		}
		q.NamespaceID = ns.ID
	}
	events, err := c.Audit(ctx, q)
	for _, e := range events {
		list.Entries = append(list.Entries, auditInfo{e.ID, e.At, e.NamespaceID, e.Action, auditParty{e.Actor.Type, e.Actor.ID, ""}, e.Actor.Address,
			auditParty{e.TargetType, e.TargetID, e.TargetName}, e.Metadata})
	}
	return list, err
}

// Run prints the log.
func (cmd *auditCmd) Run(a *app) error {
	var list auditList
	if err := a.ask(cmd.Location, "audit", auditArgs{cmd.Namespace, cmd.Action, cmd.Before, cmd.Limit}, &list); err != nil {
		return err
	}
	return a.print(list, func(w io.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "AT\tACTION\tACTOR\tADDRESS\tTARGET\tMORE")
		for _, e := range list.Entries {
			more, err := json.Marshal(e.Metadata)
			if err != nil {
				return err
			}
			fmt.Fprintf(table, "%s\t%s\t%s %s\t%s\t%s %s %s\t%s\n", e.At.Format(time.RFC3339), e.Action, e.Actor.Type, e.Actor.ID, e.Address, e.Target.Type, e.Target.Name, e.Target.ID, more)
		}
		return table.Flush()
	})
}
