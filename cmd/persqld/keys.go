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
	"github.com/persqld/persqld/internal/identity"
)

type keysCmd struct {
	Rotate keysRotateCmd `cmd:"" help:"Sign with a new key. The one before is told of, and verified with, for a while."`
	List   keysListCmd   `cmd:"" help:"List the keys that signatures are verified with."`
}

type keysRotateCmd struct {
	config.Location `embed:"" group:"settings"`
	Overlap         config.Duration `default:"24h" help:"How long what former keys signed is still good, up to 8760h; 0s for a key that got into wrong hands." placeholder:"TIME"`
}

type keysListCmd struct {
	config.Location `embed:"" group:"settings"`
}

// Validate refuses a time that is none.
func (cmd *keysRotateCmd) Validate() error {
	if cmd.Overlap.Duration < 0 || cmd.Overlap.Duration > 8760*time.Hour {
		return errors.New("--overlap must be from 0s to 8760h")
	}
	return nil
}

type keysRotateArgs struct {
	Overlap time.Duration `json:"overlap"`
}

// keyInfo is a key as it is printed.
type keyInfo struct {
	ID        string     `json:"kid"`
	Algorithm string     `json:"alg"`
	Signs     bool       `json:"signs"`
	CreatedAt time.Time  `json:"createdAt"`
	EndsAt    *time.Time `json:"endsAt"`
}

type keyList struct {
	Keys []keyInfo `json:"keys"`
}

func infoOfKey(k *catalog.SigningKey) keyInfo {
	return keyInfo{ID: k.ID, Algorithm: "RS256", Signs: k.EndsAt.IsZero(), CreatedAt: k.CreatedAt, EndsAt: optional(k.EndsAt)}
}

func rotateKeys(ctx context.Context, c *ledgers, args keysRotateArgs) (keyInfo, error) {
	k, err := identity.NewSigningKey()
	if err != nil {
		return keyInfo{}, err
	}
	made, err := c.AddSigningKey(ctx, catalog.NewSigningKey{ID: k.ID, Public: k.Public, Private: k.Private, Overlap: args.Overlap, Replace: true})
	if err != nil {
		return keyInfo{}, err
	}
	return infoOfKey(made), nil
}

func listKeys(_ context.Context, c *ledgers, _ struct{}) (keyList, error) {
	list := keyList{Keys: []keyInfo{}}
	for _, k := range c.SigningKeys() {
		list.Keys = append(list.Keys, infoOfKey(k))
	}
	return list, nil
}

// Run makes the key.
func (cmd *keysRotateCmd) Run(a *app) error {
	var made keyInfo
	if err := a.ask(cmd.Location, "keys.rotate", keysRotateArgs{cmd.Overlap.Duration}, &made); err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "The server signs with key %s now.\n", made.ID)
		return err
	})
}

// Run lists the keys.
func (cmd *keysListCmd) Run(a *app) error {
	var list keyList
	if err := a.ask(cmd.Location, "keys.list", struct{}{}, &list); err != nil {
		return err
	}
	return a.print(list, func(w io.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "KID\tALG\tCREATED\tSTATE")
		for _, k := range list.Keys {
			state := "signs"
			if k.EndsAt != nil {
				state = "verified with until " + k.EndsAt.Format(time.RFC3339)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", k.ID, k.Algorithm, k.CreatedAt.Format(time.RFC3339), state)
		}
		return table.Flush()
	})
}
