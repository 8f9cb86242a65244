package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/persqld/persqld/internal/adminsock"
	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/config"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/oauth/redirect"
	"github.com/persqld/persqld/internal/password"
	"github.com/persqld/persqld/internal/replica"
)

// ledgers are the catalog as an operation sees it.
type ledgers struct {
	*catalog.Catalog
	// undelete is the catalog's own without a server, else the server's, which lets requests reach the database again.
	undelete func(ctx context.Context, id, slug, namespaceID string) (*catalog.Database, error)
	// deleteNamespace is likewise the catalog's own or the server's, which keeps requests from the databases.
	deleteNamespace func(ctx context.Context, d catalog.Deletion) ([]*catalog.Database, error)
	// passwords hashes with the server's settings or, without a server, the defaults; another hash is made at the next sign-in
	// where those differ.
	passwords *password.Hasher
	oauthApps int            // that a namespace may have, where a server runs; 0 is the setting's default
	billing   *billing.Books // nil where nothing is counted, and without a server
	served    bool           // a server runs
	baseURL   string         // its public origin; "" without a server
}

// operation is something that a subcommand asks of the catalog, in the running server or, without one, in the
// subcommand's own process.
type operation func(ctx context.Context, c *ledgers, args json.RawMessage) (any, error)

// operations are all operations by name.
func operations() map[string]operation {
	return map[string]operation{
		"namespace.create":    typed(createNamespace),
		"namespace.list":      typed(listNamespaces),
		"namespace.delete":    typed(deleteNamespace),
		"user.create":         typed(createUser),
		"user.reset-password": typed(resetPassword),
		"user.reset-link":     typed(resetLink),
		"user.disable":        typed(disableUser),
		"user.list":           typed(listUsers),
		"audit":               typed(readAudit),
		"token.create":        typed(createToken),
		"token.list":          typed(listTokens),
		"token.revoke":        typed(revokeToken),
		"credit":              typed(giveCredit),

		"oauth-client.create":        typed(createOAuthClient),
		"oauth-client.list":          typed(listOAuthClients),
		"oauth-client.delete":        typed(deleteOAuthClient),
		"oauth-client.rotate-secret": typed(rotateOAuthClient),

		"identity.bind":   typed(bindIdentity),
		"identity.unbind": typed(unbindIdentity),
		"identity.forget": typed(forgetIdentity),
		"identity.list":   typed(listIdentities),
		"keys.rotate":     typed(rotateKeys),
		"keys.list":       typed(listKeys),

		"database.list":     typed(listDatabases),
		"database.undelete": typed(undeleteDatabase),
	}
}

// typed decodes an operation's arguments.
func typed[A, R any](do func(context.Context, *ledgers, A) (R, error)) operation {
	return func(ctx context.Context, c *ledgers, raw json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, fmt.Errorf("decode arguments: %w", err)
		}
		return do(ctx, c, args)
	}
}

// adminHandler answers subcommands in the running server.
func adminHandler(c *ledgers) adminsock.Handler {
	known := operations()
	return func(ctx context.Context, op string, args json.RawMessage) (any, error) {
		do, ok := known[op]
		if !ok {
			return nil, &adminsock.Error{Message: "the running server does not know " + op, Code: "unknown_operation",
				Hint: "its version differs from this program's; restart it"}
		}
		result, err := do(catalog.WithActor(ctx, catalog.Actor{Type: catalog.ActorOperator}), c, args)
		if err != nil {
			return nil, describe(err)
		}
		return result, nil
	}
}

var errNoData = errors.New("there is no catalog in this data directory")

// hints are the codes and hints of errors that an operator can do something about; the first that fits counts.
var hints = []struct {
	err        error
	code, hint string
}{
	{errNoData, "not_found", "give the server's directory with --data, or run persqld serve or persqld namespace create first"},
	{datadir.ErrLocked, "locked", "stop the other server, or give another directory with --data"},
	{datadir.ErrUnfinished, "unfinished_restore", "run persqld restore again; it begins anew"},
	{datadir.ErrNotEmpty, "not_empty", "give an empty directory with --data; with --database one database of a stopped server is replaced"},
	{replica.ErrReplica, "is_replica", "give a backup a place of its own, for example another prefix"},
	{replica.ErrNoDatabase, "not_found", "persqld database list shows those that exist, with --deleted those in the trash"},
	{replica.ErrNoCatalog, "not_found", "give what PERSQLD_REPLICA_URL of the server was, or --to of a backup of all of it; a backup of one database is restored with --database"},
	{replica.ErrNotKept, "not_found", "a database is in the replica once it was written to"},
	{history.ErrBookmark, "invalid_bookmark", "answers to writes, and GET …/bookmark, name bookmarks of their database"},
	{datadir.ErrNewer, "newer_version", "run the version of persqld that wrote it, or a newer one"},
	{catalog.ErrNewer, "newer_version", "run the version of persqld that wrote it, or a newer one"},
	{catalog.ErrNamespaceNotFound, "not_found", "persqld namespace list shows those that exist; persqld namespace create makes one"},
	{catalog.ErrNamespaceExists, "conflict", ""},
	{errNoTrashed, "not_found", "persqld database list --deleted shows what can be brought back"},
	{catalog.ErrDatabaseNotFound, "not_found", "a token can be pinned to a database that exists; make it first"},
	{catalog.ErrDatabaseLives, "conflict", "persqld database list shows its slug"},
	{catalog.ErrSlugTaken, "slug_taken", "give another slug with --slug"},
	{catalog.ErrTokenNotFound, "not_found", "persqld token list shows the ids"},
	{catalog.ErrTokenRevoked, "token_revoked", "give PERSQLD_TOKEN a new value"},
	{catalog.ErrTokenTaken, "conflict", "give PERSQLD_TOKEN a value of this namespace alone"},
	{catalog.ErrRole, "bad_role", "a role is admin, readwrite (or write) or readonly (or read)"},
	{catalog.ErrClaims, "bad_claims", "for example --claims '{\"user_id\": 7}'"},
	{catalog.ErrTableScope, "bad_table_scope", "leave --table-scope out for a token of all tables"},
	{catalog.ErrNamespaceNotEmpty, "namespace_not_empty", "--force moves its databases to the trash"},
	{catalog.ErrUserNotFound, "not_found", "persqld user list shows those that exist"},
	{errDisabled, "conflict", "persqld user enable lets the user sign in again"},
	{catalog.ErrUserExists, "conflict", "persqld user reset-password gives another password"},
	{catalog.ErrEmail, "bad_email", ""},
	{catalog.ErrMemberRole, "bad_role", ""},
	{password.ErrLength, "bad_password", ""},
	{password.ErrText, "bad_password", ""},
	{password.ErrBusy, "busy", "try again"},
	{catalog.ErrBindingNotFound, "not_found", "persqld identity list shows those that exist"},
	{catalog.ErrIdentityUnknown, "not_found", "persqld identity list shows those that have a namespace of their own"},
	{catalog.ErrIdentityBound, "conflict", "persqld identity list shows where; persqld identity unbind ends that"},
	{catalog.ErrIdentityName, "bad_identity", ""},
	{catalog.ErrTooManyBindings, "conflict", ""},
	{catalog.ErrOAuthClientNotFound, "not_found", "persqld oauth-client list shows those that exist"},
	{catalog.ErrOAuthClientPublic, "public_client", "PKCE stands in the place of a secret"},
	{catalog.ErrTooManyOAuthClients, "conflict", "persqld oauth-client delete ends those that nobody needs"},
	{catalog.ErrTooManyOAuthSecrets, "conflict", "--overlap 0s ends the former ones at once"},
	{redirect.ErrURI, "bad_redirect_uri", "https, http of localhost and the loopback addresses, and with --type public private-use schemes such as com.example.app:/callback"},
	{catalog.ErrRedirectURIs, "bad_redirect_uri", ""},
	{catalog.ErrOAuthClientName, "bad_name", ""},
	{catalog.ErrSlug, "bad_slug", ""},
	{catalog.ErrName, "bad_name", ""},
	{catalog.ErrDiskFull, "disk_full", "make room on the disk and try again"},
}

// ask has an operation done by the server that runs on the data directory or, if none does, here.
func (a *app) ask(where config.Location, op string, args, result any) error {
	root, err := filepath.Abs(where.Data)
	if err != nil {
		return fmt.Errorf("resolve data directory %s: %w", where.Data, err)
	}
	layout := datadir.Layout(root)
	ctx, cancel := context.WithTimeout(a.ctx, 30*time.Second)
	defer cancel()
	// A server that is starting or stopping, or another subcommand, holds the lock for a moment without a socket.
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	patience := time.After(5 * time.Second)
	for {
		err := adminsock.Call(ctx, layout.Socket(), op, args, result)
		if !errors.Is(err, adminsock.ErrNoServer) {
			return err
		}
		err = askHere(ctx, layout, op, args, result)
		if !errors.Is(err, datadir.ErrLocked) {
			return err
		}
		select {
		case <-retry.C:
		case <-patience:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// askHere does the operation on the files, which no server holds.
func askHere(ctx context.Context, layout datadir.Layout, op string, args, result any) (err error) {
	if _, statErr := os.Stat(layout.Catalog()); errors.Is(statErr, fs.ErrNotExist) && op != "namespace.create" {
		return fmt.Errorf("%w: %s", errNoData, layout.Root())
	}
	dir, err := datadir.Open(layout.Root())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	c, err := catalog.Open(ctx, dir.Catalog(), catalog.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync data directory: %w", err)
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("encode arguments: %w", err)
	}
	got, err := operations()[op](catalog.WithActor(ctx, catalog.Actor{Type: catalog.ActorOperator}), &ledgers{c, c.UndeleteInto, c.DeleteNamespace, password.New(password.Options{}), 0, nil, false, ""}, raw)
	if err != nil {
		return err
	}
	raw, err = json.Marshal(got)
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	return json.Unmarshal(raw, result)
}
