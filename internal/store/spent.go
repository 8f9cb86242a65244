package store

import (
	"errors"
	"fmt"
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

// Permit is a permission to write once.
type Permit struct {
	ID    string
	Until time.Time // nobody accepts it any more from then on, and that it was used is remembered so long
}

// The statements that use one up.
const (
	forgetSpent = "DELETE FROM %s WHERE until<=?"
	insertSpent = "INSERT INTO %s(id, until) VALUES(?,?)"
)

func (p *Permit) params() []sqlite.Param {
	return []sqlite.Param{textParam(p.ID), intParam(p.Until.UnixMilli())}
}

// Spend uses up a permission with what the request writes: ErrSpent if it was used before.
func (tx *Tx) Spend(p *Permit) error {
	spent, err := tx.HasSpent(p.ID)
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
	if err := tx.own(fmt.Sprintf(forgetSpent, spentTable.Name), []sqlite.Param{intParam(now)}, nil); err != nil {
		return err
	}
	return tx.own(fmt.Sprintf(insertSpent, spentTable.Name), p.params(), nil)
}

// spendInFile uses a permission up in a file that nobody else has open.
func spendInFile(path string, p *Permit) error {
	return withScratch(path, func(c *sqlite.Conn) error {
		if err := ensureTable(c, spentTable); err != nil {
			return err
		}
		return execute(c, fmt.Sprintf(insertSpent, spentTable.Name), p.params())
	})
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
