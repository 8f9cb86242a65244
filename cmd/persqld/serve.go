package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/persqld/persqld/internal/adminsock"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/config"
	"github.com/persqld/persqld/internal/datadir"
)

type serveCmd struct {
	config.Settings `embed:"" group:"settings"`
}

// Run runs the server until SIGTERM or SIGINT.
func (cmd *serveCmd) Run(a *app) (err error) {
	ctx, stop := signal.NotifyContext(a.ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	machine, err := config.ThisMachine()
	if err != nil {
		return err
	}
	cmd.Fill(machine)
	logger := slog.New(slog.NewJSONHandler(a.stderr, &slog.HandlerOptions{Level: cmd.LogLevel()}))

	dir, err := datadir.Open(cmd.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	c, err := catalog.Open(ctx, dir.Catalog(), catalog.Options{Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync data directory: %w", err)
	}
	ns, secret, err := ensureAdmin(ctx, c, cmd.Namespace, cmd.Token)
	if err != nil {
		return err
	}
	if secret != "" {
		fmt.Fprintf(a.stdout, "Admin token of namespace %s, shown only this once:\n%s\n", ns.Slug, secret)
	}

	socket, err := adminsock.Listen(dir.Socket())
	if err != nil {
		return err
	}
	logger.Info("ready", "data", dir.Root(), "namespace", ns.Slug)
	return adminsock.Serve(ctx, socket, adminHandler(c))
}

// ensureAdmin makes the namespace where it is missing and sees to it that somebody can get in: with the operator's own
// token if one is given, else with a generated one, returned as secret, if the namespace never had a token.
func ensureAdmin(ctx context.Context, c *catalog.Catalog, slug, token string) (ns catalog.Namespace, secret string, err error) {
	ns, err = c.Namespace(slug)
	if errors.Is(err, catalog.ErrNamespaceNotFound) {
		ns, err = c.CreateNamespace(ctx, slug)
	}
	if err != nil {
		return ns, "", err
	}
	if token != "" {
		_, err = c.EnsureOperatorToken(ctx, ns.ID, token)
		return ns, "", err
	}
	has, err := c.HasTokens(ctx, ns.ID)
	if err != nil || has {
		return ns, "", err
	}
	_, secret, err = c.CreateToken(ctx, catalog.NewToken{NamespaceID: ns.ID, Name: "first start"})
	return ns, secret, err
}
