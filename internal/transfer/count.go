package transfer

import (
	"context"
	"fmt"

	"github.com/persqld/persqld/internal/sqlite"
)

// CountRows counts the rows of all tables of the scratch at path, shadow tables apart: what a file that was taken over
// whole is metered by.
func CountRows(ctx context.Context, path string) (rows int64, err error) {
	err = use(ctx, sqlite.Scratch{Path: path, ReadOnly: true, Limits: sqlite.Limits{Length: maxLength}}, func(c *sqlite.Conn) error {
		var tables []string
		err := each(c, "SELECT name FROM pragma_table_list WHERE schema='main' AND type='table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'", nil, func(s *sqlite.Stmt) error {
			tables = append(tables, string(s.Column(0).Bytes))
			return nil
		})
		if err != nil {
			return err
		}
		for _, name := range tables {
			v, err := first(c, "SELECT count(*) FROM main."+sqlite.Quote(name))
			if err != nil {
				return err
			}
			rows += v.Int
		}
		return nil
	})
	if err != nil {
		return rows, fmt.Errorf("count rows: %w", err)
	}
	return rows, nil
}
