package main

import (
	"context"
	"fmt"
	"io"

	"github.com/persqld/persqld/internal/adminsock"
	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/config"
)

type creditCmd struct {
	config.Location `embed:"" group:"settings"`
	Namespace       string `required:"" help:"Slug of the namespace." placeholder:"SLUG"`
	USD             string `name:"usd" required:"" help:"Dollars to add, up to 1,000,000; a negative amount takes back (--usd=-5)." placeholder:"AMOUNT"`
	Note            string `help:"What it is for, up to 500 bytes; it stands in the ledger." placeholder:"TEXT"`
}

// creditArgs are the operation's arguments.
type creditArgs struct {
	Namespace string `json:"namespace"`
	Nanos     int64  `json:"nanos"`
	Note      string `json:"note"`
}

// creditInfo is what is printed.
type creditInfo struct {
	Namespace string `json:"namespace"`
	USD       string `json:"usd"`
	Balance   string `json:"balanceUsd"`
}

func (i *creditInfo) text(w io.Writer) error {
	_, err := fmt.Fprintf(w, "credited %s with $%s; the balance is $%s\n", i.Namespace, i.USD, i.Balance)
	return err
}

// Run puts money into a namespace's balance.
func (cmd *creditCmd) Run(a *app) error {
	nanos, err := catalog.ParseDollars(cmd.USD)
	if err != nil {
		return fmt.Errorf("--usd is %q: %w", cmd.USD, err)
	}
	if err := billing.CheckCredit(nanos, cmd.Note); err != nil {
		return err
	}
	var info creditInfo
	if err := a.ask(cmd.Location, "credit", creditArgs{cmd.Namespace, nanos, cmd.Note}, &info); err != nil {
		return err
	}
	return a.print(&info, info.text)
}

// giveCredit adds to the balance of a running server, or to the ledger of one that is stopped, which has the balance from there.
func giveCredit(ctx context.Context, c *ledgers, args creditArgs) (*creditInfo, error) {
	ns, err := c.Namespace(args.Namespace)
	if err != nil {
		return nil, err
	}
	if err := billing.CheckCredit(args.Nanos, args.Note); err != nil {
		return nil, err
	}
	credit := catalog.Credit{NamespaceID: ns.ID, Nanos: args.Nanos, Kind: catalog.EntryCredit, Note: args.Note}
	info := &creditInfo{Namespace: ns.Slug, USD: catalog.DollarText(args.Nanos)}
	if c.served && (c.billing == nil || !c.billing.Prepaid()) {
		return nil, &adminsock.Error{Message: "the running server keeps no balances", Code: "not_prepaid", Hint: "start it with PERSQLD_BILLING=prepaid"}
	}
	if c.billing != nil {
		if _, err := c.billing.Credit(ctx, credit); err != nil {
			return nil, err
		}
		st, err := c.billing.Standing(ctx, ns)
		if err != nil {
			return nil, err
		}
		info.Balance = catalog.DollarText(st.Balance)
		return info, nil
	}
	if _, err := c.AddCredit(ctx, credit); err != nil {
		return nil, err
	}
	balance, err := c.Balance(ctx, ns.ID)
	if err != nil {
		return nil, err
	}
	info.Balance = catalog.DollarText(balance)
	return info, nil
}
