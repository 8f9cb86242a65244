package store

import (
	"context"
	"errors"
	"fmt"

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

// MaxSnapshots is the greatest number of labels of a database that people gave, and of those that the server did.
const MaxSnapshots = 1000

// ErrManySnapshots is returned for a label by hand where there are as many as there can be. For an automatic one the oldest automatic one goes.
var ErrManySnapshots = errors.New("too many snapshots")

const (
	insertSnapshot = "INSERT INTO %s(id, label, position, created_at, automatic) VALUES(?,?,?,?,?)"
	// Automatic ones go when they are older than the history, and the oldest where there are too many.
	trimSnapshots = "DELETE FROM %[1]s WHERE automatic AND (created_at < ? OR seq <= (SELECT seq FROM %[1]s WHERE automatic ORDER BY seq DESC LIMIT 1 OFFSET ?))"
)

func (n *Snapshot) params() []sqlite.Param {
	flag := int64(0)
	if n.Automatic {
		flag = 1
	}
	return []sqlite.Param{textParam(n.ID), textParam(n.Label), intParam(int64(n.Position)), intParam(n.CreatedAt), intParam(flag)}
}

// trim are the parameters of trimSnapshots.
func (s *Store) trim(n *Snapshot) []sqlite.Param {
	oldest := int64(0)
	if s.opt.PastFor > 0 {
		oldest = n.CreatedAt - s.opt.PastFor.Milliseconds()
	}
	return []sqlite.Param{intParam(oldest), intParam(MaxSnapshots)}
}

// AddSnapshot adds a label, in the request's own transaction: it is there if, and only if, what the request wrote is. It returns ErrManySnapshots.
func (tx *Tx) AddSnapshot(n Snapshot) error {
	s := tx.w.store
	name := s.system.snapshots.Name
	if err := tx.need(s.system.snapshots); err != nil {
		return err
	}
	if !n.Automatic {
		full := false
		err := tx.own("SELECT 1 FROM "+name+" WHERE NOT automatic LIMIT 1 OFFSET ?", []sqlite.Param{intParam(MaxSnapshots - 1)}, func(*sqlite.Stmt) error { full = true; return nil })
		if err != nil {
			return err
		}
		if full {
			return ErrManySnapshots
		}
	}
	if err := tx.own(fmt.Sprintf(insertSnapshot, name), n.params(), nil); err != nil {
		return err
	}
	return tx.own(fmt.Sprintf(trimSnapshots, name), s.trim(&n), nil)
}

// labelFile adds an automatic label to a file that is about to take the database's place.
func (s *Store) labelFile(path string, n *Snapshot) error {
	t := s.system.snapshots
	return withScratch(path, func(c *sqlite.Conn) error {
		if err := ensureTable(c, t); err != nil {
			return err
		}
		if err := execute(c, fmt.Sprintf(insertSnapshot, t.Name), n.params()); err != nil {
			return err
		}
		return execute(c, fmt.Sprintf(trimSnapshots, t.Name), s.trim(n))
	})
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
