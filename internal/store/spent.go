package store

import (
	"errors"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// ErrSpent is returned for a permission to write once that was used.
var ErrSpent = errors.New("it was used already")

// spentTable holds the permissions that were used: with the write that used them, so that no crash leaves one without the other.
var spentTable = SystemTable{
	Name:    SystemPrefix + "spent_v1",
	Columns: "id TEXT PRIMARY KEY, until INTEGER NOT NULL", Options: "WITHOUT ROWID",
	// They are for this database alone. A restore undoes writes, and gives nobody the right to run them again; an import neither.
	Branch: Leave, Restore: Keep, Export: Leave, Import: Keep,
}

// Spend uses up a permission to write once, with what the request writes: ErrSpent if it was used before. It is remembered until a time after which nobody accepts it
// any more.
func (tx *Tx) Spend(id string, until time.Time) error {
	spent, err := tx.HasSpent(id)
	if err != nil {
		return err
	}
	if spent {
		return ErrSpent
	}
	if err := tx.need(spentTable); err != nil {
		return err
	}
	now := tx.w.store.opt.Now().UnixMilli()
	if err := tx.own("DELETE FROM "+spentTable.Name+" WHERE until<=?", []sqlite.Param{intParam(now)}, nil); err != nil {
		return err
	}
	return tx.own("INSERT INTO "+spentTable.Name+"(id, until) VALUES(?,?)", []sqlite.Param{textParam(id), intParam(until.UnixMilli())}, nil)
}

// HasSpent tells whether a permission was used.
func (tx *Tx) HasSpent(id string) (spent bool, err error) {
	have, err := tx.has(spentTable)
	if err != nil || !have {
		return false, err
	}
	err = tx.own("SELECT 1 FROM "+spentTable.Name+" WHERE id=?", []sqlite.Param{textParam(id)}, func(*sqlite.Stmt) error {
		spent = true
		return nil
	})
	return spent, err
}

// Unspend gives a permission back whose write, which is not of this transaction, failed.
func (tx *Tx) Unspend(id string) error {
	have, err := tx.has(spentTable)
	if err != nil || !have {
		return err
	}
	return tx.own("DELETE FROM "+spentTable.Name+" WHERE id=?", []sqlite.Param{textParam(id)}, nil)
}
