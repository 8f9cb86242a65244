package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/persqld/persqld/internal/sqlite"
)

// Share is what work on scratch files may take of the server.
type Share struct {
	// Look is asked while statements run, and returns when the work may go on, or why it must stop.
	Look func() error
	// Memory is how many bytes of the engine's memory the work may hold; 0 is no limit.
	Memory int64
	// Afford is asked while the statements of a text run, with what all of them have read and written so far, and returns why they must stop. It may be nil.
	Afford func(sqlite.Counts) error
}

type shareKey struct{}

// WithShare returns a context for work that keeps to its share.
func WithShare(ctx context.Context, s Share) context.Context {
	return context.WithValue(ctx, shareKey{}, s)
}

// ErrMemory is why a statement was stopped that held more than its Share of memory.
var ErrMemory = errors.New("the statement holds too much memory")

// use opens a scratch file and runs f on it. It looks at ctx while statements run, and turns a fault of the engine into
// ErrFault.
func use(ctx context.Context, cfg sqlite.Scratch, f func(*sqlite.Conn) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	var conn *sqlite.Conn
	t := sqlite.NewThread()
	defer func() {
		if r := recover(); r != nil {
			// The thread's stack is where the fault left it: both are given up.
			err = fmt.Errorf("%w: %v", ErrFault, r)
			if conn != nil {
				err = errors.Join(err, conn.Abandon())
			}
			return
		}
		t.Close()
	}()
	conn, err = sqlite.OpenScratch(cfg, t)
	if err != nil {
		return err
	}
	share, _ := ctx.Value(shareKey{}).(Share)
	t.Heap().Begin()
	conn.Watch(func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if share.Memory > 0 && t.Heap().Held() > share.Memory {
			return ErrMemory
		}
		if share.Look != nil {
			return share.Look()
		}
		return nil
	})
	err = f(conn)
	conn.Watch(nil)
	return errors.Join(err, conn.Close())
}

// each runs one of our own queries and shows f, if there is one, every row.
func each(c *sqlite.Conn, query string, params []sqlite.Param, f func(*sqlite.Stmt) error) error {
	s, err := c.Own(query)
	if err != nil {
		return err
	}
	defer s.Done()
	if err := s.Bind(params); err != nil {
		return err
	}
	for {
		row, err := s.Step()
		if err != nil || !row {
			return err
		}
		if f == nil {
			continue
		}
		if err := f(s); err != nil {
			return err
		}
	}
}

// first is the first value that a query returns, NULL if there is no row. Its bytes are copied.
func first(c *sqlite.Conn, query string, params ...sqlite.Param) (v sqlite.Value, err error) {
	s, err := c.Own(query)
	if err != nil {
		return v, err
	}
	defer s.Done()
	if err := s.Bind(params); err != nil {
		return v, err
	}
	if row, err := s.Step(); err != nil || !row {
		return v, err
	}
	v = s.Column(0)
	v.Bytes = append([]byte(nil), v.Bytes...)
	return v, nil
}
