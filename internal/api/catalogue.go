package api

import (
	"errors"
	"slices"
	"strings"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// What the discovery calls know of a schema. All of it is read in one request to the actor, so it is of one moment.

type tableInfo struct {
	Table       string       `json:"table"`
	Description *string      `json:"description"`
	Columns     []columnInfo `json:"columns"`
	ForeignKeys []foreignKey `json:"foreignKeys"`
	Indexes     []indexInfo  `json:"indexes"`
	RowCount    *int64       `json:"rowCount"` // nil for a table that can't be read
	virtual     bool
	hidden      bool     // the caller may not read all that it reads
	broken      string   // why it can't be read, such as a virtual table whose content table is gone
	constraints []string // the first columns of the indexes that SQLite made for constraints
}

type columnInfo struct {
	Name         string  `json:"name"`
	Type         string  `json:"type"`
	NotNull      bool    `json:"notNull"`
	PrimaryKey   bool    `json:"primaryKey"`
	DefaultValue *string `json:"defaultValue"`
	Description  *string `json:"description"`
}

type foreignKey struct {
	Column           string `json:"column"`
	ReferencesTable  string `json:"referencesTable"`
	ReferencesColumn string `json:"referencesColumn"`
	seq              int64
}

type indexInfo struct {
	Name    string   `json:"name"`
	Unique  bool     `json:"unique"`
	Columns []string `json:"columns"`
	partial bool
}

func str(v sqlite.Value) string { return string(v.Bytes) }

func strOrNil(v sqlite.Value) *string {
	if v.Kind == sqlite.Null {
		return nil
	}
	s := string(v.Bytes)
	return &s
}

func textParam(s string) []sqlite.Param {
	return []sqlite.Param{{Value: sqlite.Value{Kind: sqlite.Text, Bytes: []byte(s)}}}
}

// quoteName makes an identifier of a name that the schema gave.
func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// userTables lists the tenant's tables that the caller may see by name: ordinary and virtual ones, without the shadow tables of
// the latter.
func userTables(tx *store.Tx, c *gate.Caller) ([]tableInfo, error) {
	var list []tableInfo
	err := tx.Query("SELECT name, type FROM pragma_table_list WHERE schema='main' AND type IN ('table','virtual') AND "+notSystem+" ORDER BY name COLLATE NOCASE", nil,
		func(s *sqlite.Stmt) error {
			if !c.Sees(str(s.Column(0))) {
				return nil
			}
			list = append(list, tableInfo{Table: str(s.Column(0)), virtual: str(s.Column(1)) == "virtual",
				Columns: []columnInfo{}, ForeignKeys: []foreignKey{}, Indexes: []indexInfo{}})
			return nil
		})
	return list, err
}

// countRows counts a table's rows exactly. A virtual table may read other tables: for a caller with a scope it is counted as that
// caller's statement, and not at all if that is refused; so is any table for a caller that policies bind, who is told of what it may read.
func countRows(tx *store.Tx, c *gate.Caller, t *tableInfo) error {
	if c.Bound() {
		st, _, err := tx.Prepare([]byte("SELECT count(*) FROM " + quoteName(t.Table)))
		if err != nil {
			t.hidden = true
			return nil
		}
		defer st.Done()
		_, err = tx.Run(st, nil, func(s *sqlite.Stmt) error {
			n := s.Column(0).Int
			t.RowCount = &n
			return nil
		})
		return err
	}
	if !c.Whole() && t.virtual {
		st, _, err := tx.Prepare([]byte("SELECT count(*) FROM main." + quoteName(t.Table)))
		if err != nil {
			t.hidden = true
			return nil
		}
		st.Done()
	}
	return tx.Count("SELECT count(*) FROM main."+quoteName(t.Table), nil, func(s *sqlite.Stmt) error {
		n := s.Column(0).Int
		t.RowCount = &n
		return nil
	})
}

// rows is the number of rows, as far as it is known.
func (t *tableInfo) rows() int64 {
	if t.RowCount == nil {
		return 0
	}
	return *t.RowCount
}

// breaks notes an error that is the table's own: it must not hide the other tables. Any other error is returned.
func (t *tableInfo) breaks(tx *store.Tx, err error) error {
	var e *sqlite.Error
	if errors.As(tx.Explain(err), &e) && e.Cause == nil && (e.Code.Primary() == sqlite.CodeError || e.Code == sqlite.CodeCorruptVTab) {
		t.broken = e.Message
		return nil
	}
	return err
}

// readColumns reads a table's columns, generated ones too, hidden ones of virtual tables not.
func readColumns(tx *store.Tx, t *tableInfo) error {
	return tx.Query(`SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_xinfo(?) WHERE hidden<>1 ORDER BY cid`, textParam(t.Table), func(s *sqlite.Stmt) error {
		t.Columns = append(t.Columns, columnInfo{Name: str(s.Column(0)), Type: str(s.Column(1)), NotNull: s.Column(2).Int != 0,
			DefaultValue: strOrNil(s.Column(3)), PrimaryKey: s.Column(4).Int != 0})
		return nil
	})
}

func readForeignKeys(tx *store.Tx, t *tableInfo) error {
	var implied []int
	err := tx.Query(`SELECT "from", "table", "to", seq FROM pragma_foreign_key_list(?) ORDER BY id DESC, seq`, textParam(t.Table), func(s *sqlite.Stmt) error {
		if s.Column(2).Kind == sqlite.Null { // REFERENCES without a column means the parent's primary key
			implied = append(implied, len(t.ForeignKeys))
		}
		t.ForeignKeys = append(t.ForeignKeys, foreignKey{str(s.Column(0)), str(s.Column(1)), str(s.Column(2)), s.Column(3).Int})
		return nil
	})
	if err != nil {
		return err
	}
	for _, i := range implied {
		fk := &t.ForeignKeys[i]
		err := tx.Query("SELECT name FROM pragma_table_info("+quoteText(fk.ReferencesTable)+") WHERE pk=?",
			[]sqlite.Param{{Value: sqlite.Value{Kind: sqlite.Integer, Int: fk.seq + 1}}}, func(s *sqlite.Stmt) error {
				fk.ReferencesColumn = str(s.Column(0))
				return nil
			})
		if err != nil {
			return err
		}
	}
	return nil
}

func quoteText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// readIndexes reads a table's indexes, but for those that SQLite made for a constraint.
func readIndexes(tx *store.Tx, t *tableInfo) error {
	err := tx.Query(`SELECT name, "unique", partial FROM pragma_index_list(?) WHERE origin='c' ORDER BY name COLLATE NOCASE`, textParam(t.Table), func(s *sqlite.Stmt) error {
		t.Indexes = append(t.Indexes, indexInfo{Name: str(s.Column(0)), Unique: s.Column(1).Int != 0, Columns: []string{}, partial: s.Column(2).Int != 0})
		return nil
	})
	if err != nil {
		return err
	}
	err = tx.Query(`SELECT i.name FROM pragma_index_list(?) l, pragma_index_info(l.name) i WHERE l.origin<>'c' AND i.seqno=0 AND i.name IS NOT NULL`, textParam(t.Table), func(s *sqlite.Stmt) error {
		t.constraints = append(t.constraints, str(s.Column(0)))
		return nil
	})
	if err != nil {
		return err
	}
	for i := range t.Indexes {
		ix := &t.Indexes[i]
		err := tx.Query("SELECT coalesce(name, '<expression>') FROM pragma_index_info(?) ORDER BY seqno", textParam(ix.Name), func(s *sqlite.Stmt) error {
			ix.Columns = append(ix.Columns, str(s.Column(0)))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// schemaOf is everything that describe shows.
type schemaInfo struct {
	Description *string     `json:"databaseDescription"`
	Tables      []tableInfo `json:"tables"`
}

// readSchema reads what the caller may see of the schema, with descriptions; counts says whether rows are counted too.
func readSchema(tx *store.Tx, c *gate.Caller, counts bool) (schemaInfo, error) {
	info := schemaInfo{}
	var err error
	if info.Tables, err = userTables(tx, c); err != nil {
		return info, err
	}
	if info.Tables == nil {
		info.Tables = []tableInfo{}
	}
	steps := []func(*store.Tx, *tableInfo) error{readColumns, readForeignKeys, readIndexes}
	if counts {
		steps = append(steps, func(tx *store.Tx, t *tableInfo) error { return countRows(tx, c, t) })
	}
	for i := range info.Tables {
		t := &info.Tables[i]
		for _, step := range steps {
			if err := step(tx, t); err != nil {
				if err := t.breaks(tx, err); err != nil {
					return info, err
				}
			}
		}
		t.ForeignKeys = slices.DeleteFunc(t.ForeignKeys, func(fk foreignKey) bool { return !c.Sees(fk.ReferencesTable) })
	}
	notes, err := tx.Notes()
	if err != nil {
		return info, err
	}
	for i := range notes {
		info.attach(&notes[i])
	}
	return info, nil
}

// attach puts a note where it belongs. One about something that is gone is kept, and shown when it is back.
func (info *schemaInfo) attach(n *store.Note) {
	if n.Table == "" {
		info.Description = &n.Text
		return
	}
	for i := range info.Tables {
		t := &info.Tables[i]
		if !strings.EqualFold(t.Table, n.Table) {
			continue
		}
		if n.Column == "" {
			t.Description = &n.Text
			return
		}
		for j := range t.Columns {
			if strings.EqualFold(t.Columns[j].Name, n.Column) {
				t.Columns[j].Description = &n.Text
			}
		}
		return
	}
}
