package sqlite

import (
	"fmt"
	"strings"
)

// CreateReserved runs a CREATE TABLE of a name that SQLite keeps for itself ("sqlite_…"), which takes two switches:
// they are on for this statement only.
func (c *Conn) CreateReserved(sql string) error {
	return c.WriteSchema(func() error { return c.Exec(sql) })
}

// dropped is the name that a reserved table has for the moment between its renaming and its end. No client can make one
// of it.
const dropped = "_persql_dropped"

// DropReserved drops a table of a name that SQLite keeps for itself, with its indexes. SQLite drops none of those, so the
// table gets another name first, in the rows of the schema. It is part of the open transaction.
func (c *Conn) DropReserved(table string) error {
	if strings.Trim(table, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return fmt.Errorf("drop table %q: not a name of the server's", table)
	}
	return c.WriteSchema(func() error {
		// The text of a table begins CREATE TABLE name(; the indexes of its constraints have no text, and names that
		// SQLite derives from the table's.
		rename := fmt.Sprintf(`UPDATE sqlite_schema SET tbl_name='%[1]s',
			name=CASE type WHEN 'table' THEN '%[1]s' ELSE replace(name, 'sqlite_autoindex_%[2]s_', 'sqlite_autoindex_%[1]s_') END,
			sql=CASE type WHEN 'table' THEN 'CREATE TABLE %[1]s' || substr(sql, instr(sql, '(')) ELSE sql END
			WHERE tbl_name='%[2]s'`, dropped, table)
		for _, sql := range []string{rename, "PRAGMA writable_schema=RESET", "DROP TABLE " + dropped} {
			if err := c.Exec(sql); err != nil {
				return err
			}
		}
		return nil
	})
}
