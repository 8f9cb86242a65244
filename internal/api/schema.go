package api

import (
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

type schemaObject struct {
	Type  string  `json:"type"`
	Name  string  `json:"name"`
	Table string  `json:"table"`
	SQL   *string `json:"sql"`
}

// schemaObjects lists what the tenant made, in an order in which it could be made again. A caller with a scope sees its tables
// and views and their indexes; triggers not, since they tell of other tables.
func schemaObjects(tx *store.Tx, c *gate.Caller) ([]schemaObject, error) {
	list := []schemaObject{}
	err := tx.Query("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE "+notSystem+
		" AND tbl_name NOT IN (SELECT name FROM pragma_table_list WHERE schema='main' AND type='shadow')"+
		" ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, rowid", nil, func(s *sqlite.Stmt) error {
		if !c.Sees(str(s.Column(2))) || !c.Whole() && str(s.Column(0)) == "trigger" {
			return nil
		}
		list = append(list, schemaObject{str(s.Column(0)), str(s.Column(1)), str(s.Column(2)), strOrNil(s.Column(3))})
		return nil
	})
	return list, err
}

// nulls are n parameters without a value.
func nulls(n int) []sqlite.Param { return make([]sqlite.Param, n) }
