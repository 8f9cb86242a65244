package sqlite

import (
	"errors"
	"fmt"
	"strings"

	sqlite3 "modernc.org/sqlite/lib"
)

// CreateReserved runs a CREATE TABLE of a name that SQLite keeps for itself ("sqlite_…"), which takes two switches:
// they are on for this statement only.
func (c *Conn) CreateReserved(sql string) error {
	return c.withSchemaWritable(func() error { return c.Exec(sql) })
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
	return c.withSchemaWritable(func() error {
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

// withSchemaWritable runs f with the two switches that let a statement touch reserved names.
func (c *Conn) withSchemaWritable(f func() error) (err error) {
	if err := c.configure(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, int32(0), uintptr(0)); err != nil {
		return err
	}
	defer func() {
		// RESET reads the schema anew, so what was compiled before it means nothing now.
		err = errors.Join(err, c.Exec("PRAGMA writable_schema=RESET"),
			c.configure(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, int32(1), uintptr(0)))
		c.DropStatements()
	}()
	if err := c.Exec("PRAGMA writable_schema=ON"); err != nil {
		return err
	}
	return f()
}
