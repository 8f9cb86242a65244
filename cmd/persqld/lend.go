package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/persqld/persqld/internal/adminsock"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/replica"
	"github.com/persqld/persqld/internal/store"
)

// What the running server lends to a backup: its catalog, and a database's file which it doesn't write to meanwhile. The backup, which may take hours, encodes and
// uploads in its own process, with its own credentials and memory.
const (
	lendCatalog  = "backup.catalog"
	lendDatabase = "backup.database"
)

type lendArgs struct {
	ID string `json:"id"`
}

// lent is what is said of a database's file.
type lent struct {
	Kept     bool   `json:"kept"`
	Position uint64 `json:"position"`
	Time     int64  `json:"time"`
}

// The codes of what is wrong with one database alone.
const (
	codeNoFile  = "database_not_found"
	codeDamaged = "database_damaged"
)

// lender lends what a backup asks for, and has next answer the rest.
func lender(next adminsock.Handler, cat *catalog.Catalog, st *store.Store, dir *datadir.Dir) adminsock.Handler {
	return func(ctx context.Context, op string, args json.RawMessage) (any, error) {
		switch op {
		case lendCatalog:
			f, err := copyOfCatalog(ctx, cat, dir.Temp())
			if err != nil {
				return nil, err
			}
			return &adminsock.Loan{Result: lent{}, File: f, Done: func() { f.Close() }}, nil
		case lendDatabase:
			var a lendArgs
			if err := json.Unmarshal(args, &a); err != nil {
				return nil, fmt.Errorf("decode arguments: %w", err)
			}
			p, unpin, err := st.Pin(ctx, a.ID)
			switch {
			case errors.Is(err, store.ErrNotFound):
				return nil, &adminsock.Error{Message: err.Error(), Code: codeNoFile}
			case errors.Is(err, store.ErrDamaged):
				return nil, &adminsock.Error{Message: err.Error(), Code: codeDamaged}
			case err != nil:
				return nil, err
			}
			return &adminsock.Loan{Result: lent{p.Kept, p.Position, p.Time}, File: p.File, Done: unpin}, nil
		}
		return next(ctx, op, args)
	}
}

// copyOfCatalog is a copy without a name.
func copyOfCatalog(ctx context.Context, cat *catalog.Catalog, temp string) (*os.File, error) {
	dir, err := os.MkdirTemp(temp, "lent-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "catalog.db")
	if err := cat.Copy(ctx, path); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// borrower is the replica.Source of a running server.
type borrower struct{ socket string }

var _ replica.Source = borrower{}

// Catalog is part of replica.Source.
func (b borrower) Catalog(ctx context.Context, to string) (err error) {
	f, err := adminsock.Borrow(ctx, b.socket, lendCatalog, struct{}{}, &lent{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Return()) }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, f)
	return errors.Join(err, out.Close())
}

// Pin is part of replica.Source.
func (b borrower) Pin(ctx context.Context, id string) (p store.Pinned, release func() error, err error) {
	var l lent
	f, err := adminsock.Borrow(ctx, b.socket, lendDatabase, lendArgs{id}, &l)
	var problem *adminsock.Error
	if errors.As(err, &problem) {
		switch problem.Code {
		case codeNoFile:
			err = store.ErrNotFound
		case codeDamaged:
			err = fmt.Errorf("%s (%w)", problem.Message, store.ErrDamaged)
		}
	}
	if err != nil {
		return p, nil, err
	}
	return store.Pinned{File: f.File, Kept: l.Kept, Position: l.Position, Time: l.Time}, f.Return, nil
}

// source is what is backed up of a data directory: the server's that runs on it or, if none does, the files themselves.
func (a *app) source(ctx context.Context, data string) (src replica.Source, done func() error, err error) {
	root, err := filepath.Abs(data)
	if err != nil {
		return nil, nil, fmt.Errorf("resolve data directory %s: %w", data, err)
	}
	socket := datadir.Layout(root).Socket()
	// As in ask: a server that is starting or stopping holds the lock for a moment without a socket.
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	patience := time.After(5 * time.Second)
	for {
		var list namespaceList
		err := adminsock.Call(ctx, socket, "namespace.list", struct{}{}, &list)
		if err == nil {
			return borrower{socket}, func() error { return nil }, nil
		}
		if !errors.Is(err, adminsock.ErrNoServer) {
			return nil, nil, err
		}
		f, err := openFiles(ctx, root)
		if err == nil {
			return replica.Opened{Books: f.cat, Store: f.store}, func() error { return f.close(ctx) }, nil
		}
		if !errors.Is(err, datadir.ErrLocked) {
			return nil, nil, err
		}
		select {
		case <-retry.C:
		case <-patience:
			return nil, nil, err
		case <-ctx.Done():
			return nil, nil, err
		}
	}
}
