package store

import (
	"context"
	"errors"

	"github.com/persqld/persqld/internal/sqlite"
)

// Snapshot is a label on a position of the database's history: no copy of anything.
type Snapshot struct {
	ID        string
	Label     string
	Position  uint64
	CreatedAt int64 // Unix ms
	Automatic bool  // made before a statement that destroys
}

// ErrNoSnapshot is returned for the id of a snapshot that isn't there.
var ErrNoSnapshot = errors.New("no such snapshot")

// Snapshots are the labels of the database, the newest first.
func (tx *Tx) Snapshots() ([]Snapshot, error) {
	have, err := tx.has(tx.w.store.system.snapshots)
	if err != nil || !have {
		return nil, err
	}
	var list []Snapshot
	err = tx.own(selectSnapshots+tx.w.store.system.snapshots.Name+newestFirst, nil, func(s *sqlite.Stmt) error {
		list = append(list, snapshotOf(s))
		return nil
	})
	return list, err
}

// Snapshots are the labels of a database.
func (s *Store) Snapshots(ctx context.Context, database string) (list []Snapshot, err error) {
	err = s.Do(ctx, database, &Request{Job: JobFunc(func(tx *Tx) (err error) {
		list, err = tx.Snapshots()
		return err
	})})
	return list, err
}

// AddSnapshot adds a label, in the request's own transaction: it is there if, and only if, what the request wrote is.
func (tx *Tx) AddSnapshot(n Snapshot) error {
	if err := tx.need(tx.w.store.system.snapshots); err != nil {
		return err
	}
	flag := int64(0)
	if n.Automatic {
		flag = 1
	}
	return tx.own("INSERT INTO "+tx.w.store.system.snapshots.Name+"(id, label, position, created_at, automatic) VALUES(?,?,?,?,?)",
		[]sqlite.Param{textParam(n.ID), textParam(n.Label), intParam(int64(n.Position)), intParam(n.CreatedAt), intParam(flag)}, nil)
}

// DropSnapshot takes a label away. It returns ErrNoSnapshot.
func (tx *Tx) DropSnapshot(id string) error {
	have, err := tx.has(tx.w.store.system.snapshots)
	if err != nil {
		return err
	}
	if !have {
		return ErrNoSnapshot
	}
	found := false
	at := []sqlite.Param{textParam(id)}
	if err := tx.own("SELECT 1 FROM "+tx.w.store.system.snapshots.Name+" WHERE id=?", at, func(*sqlite.Stmt) error { found = true; return nil }); err != nil {
		return err
	}
	if !found {
		return ErrNoSnapshot
	}
	return tx.own("DELETE FROM "+tx.w.store.system.snapshots.Name+" WHERE id=?", at, nil)
}

// Boundary makes the request's transaction its own: what others were answered before is committed, and what they write later is in another one. It returns
// the number of the last transaction before it. The request runs again, alone, where others share its group; its Job returns the error.
func (tx *Tx) Boundary() (before uint64, err error) {
	if tx.over() {
		return 0, errEnded
	}
	if !tx.lone || tx.w.group.wrote {
		return 0, tx.check(errBoundary)
	}
	if err := tx.w.store.recall(tx.a); err != nil {
		return 0, tx.check(&wrapped{ErrStorage, err})
	}
	return tx.a.past.position(), nil
}

// KeepsHistory tells whether earlier moments of the database can be restored.
func (tx *Tx) KeepsHistory() bool { return tx.w.store.keeps() }
