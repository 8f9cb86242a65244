package store

import (
	"context"

	"github.com/persqld/persqld/internal/sqlite"
)

// Retire closes a database with a checkpoint and keeps requests from it. See Runner.
func (s *Store) Retire(ctx context.Context, database string) error {
	s.mu.Lock()
	s.retired[database] = struct{}{}
	idle := s.actors[database] == nil
	s.mu.Unlock()
	if idle {
		return nil
	}
	return s.act(context.WithoutCancel(ctx), database, (*worker).retire)
}

// Admit lets requests to a retired database again. See Runner.
func (s *Store) Admit(_ context.Context, database string) error {
	s.mu.Lock()
	delete(s.retired, database)
	s.mu.Unlock()
	return nil
}

// isRetired tells whether a database takes no requests. The store is locked.
func (s *Store) isRetired(database string) bool {
	_, yes := s.retired[database]
	return yes
}

// closeRetired closes a retired database that could not be closed when it was retired: a statement was stuck in the engine.
// It tells whether a is one; then it is given back.
func (s *Store) closeRetired(a *actor, t *sqlite.Thread) bool {
	s.mu.Lock()
	retired := s.isRetired(a.id)
	s.mu.Unlock()
	if !retired {
		return false
	}
	if err := a.shut(s, t, true); err != nil {
		s.log.Warn("close database", "database", a.id, "error", err)
	}
	a.tables.forget()
	a.kept.forget()
	s.closed(a)
	s.giveBack(a)
	return true
}

// retire closes the connection, if there is one, with its log copied back. Where that fails the log keeps what it has.
func (w *worker) retire(a *actor) error {
	if a.conn == nil {
		return nil
	}
	conn := a.conn
	conn.Use(w.thread)
	conn.Watch(nil)
	var err error
	if conn.LogFrames() > 0 {
		w.store.keep(a) // else its last transactions would be missing, and their positions be used again after an undelete
	}
	if conn.LogFrames() > 0 && a.pins.Load() == 0 {
		err = w.guard(a, func() error { return conn.Checkpoint(sqlite.CheckpointTruncate) })
		if err == nil {
			w.store.mend(a)
		}
	}
	if a.conn != nil {
		w.dropConn(a)
	}
	return translate(err, false)
}
