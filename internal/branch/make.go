package branch

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/persqld/persqld/internal/sqlite"
)

// Shape is what a branch without rows has of its parent.
type Shape struct {
	Objects       []string // statements that make the objects, in an order that they can be made in
	UserVersion   int64
	ApplicationID int64
}

// ErrShape is returned where a schema can't be made anew; the text says why.
var ErrShape = errors.New("the schema can't be made anew")

// Make writes a database of a shape to a new file, which says that it has no log. It is the caller's until it is finished, synced and given its name.
func Make(ctx context.Context, path string, s Shape, limits sqlite.Limits) (err error) {
	empty := sqlite.EmptyFile()
	empty[18], empty[19] = 1, 1 // https://sqlite.org/fileformat2.html, section 1.3.3: else a log is made, and taken away again
	if err := os.WriteFile(path, empty, 0o600); err != nil {
		return err
	}
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.OpenScratch(sqlite.Scratch{Path: path, Limits: limits}, th)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, c.Interrupt)
	err = fill(c, s)
	stop()
	if err := errors.Join(err, c.Close()); err != nil {
		return errors.Join(err, ctx.Err())
	}
	return nil
}

func fill(c *sqlite.Conn, s Shape) error {
	if err := c.Exec("BEGIN"); err != nil {
		return err
	}
	for _, sql := range s.Objects {
		if err := run(c, sql); err != nil {
			return fmt.Errorf("%w: %w", ErrShape, err)
		}
	}
	for _, p := range []struct {
		name  string
		value int64
	}{{"user_version", s.UserVersion}, {"application_id", s.ApplicationID}} {
		if p.value != 0 {
			if err := c.Exec(fmt.Sprintf("PRAGMA %s=%d", p.name, p.value)); err != nil {
				return err
			}
		}
	}
	return c.Exec("COMMIT")
}

func run(c *sqlite.Conn, sql string) error {
	s, err := c.Own(sql)
	if err != nil {
		return err
	}
	defer s.Done()
	for {
		more, err := s.Step()
		if err != nil || !more {
			return err
		}
	}
}
