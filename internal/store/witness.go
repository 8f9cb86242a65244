package store

import "github.com/persqld/persqld/internal/sqlite"

// Witness is a Gate that is told of every row that its request changes, because some of what a statement does shows only while it
// runs: how many rows there are, and which ones REPLACE takes away.
type Witness interface {
	Gate
	// Watches tells whether it wants to know. It is asked before each run of a Job, and forgets what an earlier run did.
	Watches() bool
	// Begin is called before each statement.
	Begin()
	// Changing is called for each row before it changes, of the server's own tables too. It must not keep the Change.
	Changing(*sqlite.Change)
	// Changed is asked after each statement that ended well. An error is the statement's: the Job has to return it, so that all that the request wrote is undone.
	Changed(*sqlite.Stmt) error
	// Settled is asked before what the request wrote becomes part of anything. An error undoes it.
	Settled() error
}

// witnessedBy has a request's gate told of the rows that change. The first one that wants to know costs the connection its compiled statements: those were compiled to tell
// nobody. From then on it tells, until it is closed.
func (a *actor) witnessedBy(g Gate) {
	a.witness = nil
	w, ok := g.(Witness)
	if !ok || !w.Watches() {
		return
	}
	if !a.witnessed {
		a.witnessed = true
		a.setHooks(a.conn)
	}
	a.witness = w
}

// witnessed asks the gate about what a statement has changed.
func (tx *Tx) witnessed(s *sqlite.Stmt) error {
	if tx.witness == nil || !s.Writes {
		return nil
	}
	return tx.witness.Changed(s)
}
