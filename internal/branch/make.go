package branch

import (
	"errors"
	"fmt"
	"os"

	"github.com/persqld/persqld/internal/sqlite"
)

// Shape is what a branch without rows has of its parent.
type Shape struct {
	Objects       []Object // tables before what is on them
	UserVersion   int64
	ApplicationID int64
}

// Object is a row of sqlite_schema. The shadow tables of a virtual one aren't told: its module makes them.
type Object struct {
	Type, Name, Table string
	SQL               string // "" for the index of a constraint
	Virtual           bool   // a virtual table
	Keyed             bool   // a table WITHOUT ROWID
}

// Read reads the shape of a database: the tables that it has, and what query gives.
func Read(tables map[string]sqlite.Shape, query func(sql string, row func(*sqlite.Stmt) error) error) (s Shape, err error) {
	// What belongs to the server, or to statistics of rows, doesn't travel.
	err = query(`SELECT type, name, tbl_name, sql FROM sqlite_schema
		WHERE (tbl_name NOT LIKE 'sqlite\_%' ESCAPE '\' AND tbl_name NOT LIKE '\_persql\_%' ESCAPE '\' OR name='sqlite_sequence')
		ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, rowid`, func(st *sqlite.Stmt) error {
		o := Object{Type: string(st.Column(0).Bytes), Name: string(st.Column(1).Bytes), Table: string(st.Column(2).Bytes), SQL: string(st.Column(3).Bytes)}
		t := tables[sqlite.Fold(o.Table)]
		o.Virtual, o.Keyed = t.Virtual, o.Type == "table" && !t.Rowid
		if !t.Shadow {
			s.Objects = append(s.Objects, o)
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	return s, query("SELECT user_version, application_id FROM pragma_user_version, pragma_application_id", func(st *sqlite.Stmt) error {
		s.UserVersion, s.ApplicationID = st.Column(0).Int, st.Column(1).Int
		return nil
	})
}

// tree is what the rows of an object are kept in; none for one that has none.
func (o *Object) tree() (kind sqlite.TreeKind, ok bool) {
	switch {
	case o.Virtual || o.Type != "table" && o.Type != "index":
		return 0, false
	case o.Type == "index" || o.Keyed:
		return sqlite.IndexTree, true
	}
	return sqlite.TableTree, true
}

// ShapeError says why a schema can't be made anew.
type ShapeError struct{ Err error }

func (e *ShapeError) Error() string { return "the schema can't be made anew: " + e.Err.Error() }
func (e *ShapeError) Unwrap() error { return e.Err }

// Make writes the empty trees of a shape to a new file. It is a database of it once fill was called with it, open as scratch: that puts in the rows of sqlite_schema as
// the parent has them, where a CREATE for each would have SQLite read all those before it again.
func Make(path string, s Shape) (fill func(*sqlite.Conn) error, err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var kinds []sqlite.TreeKind
	for i := range s.Objects {
		if kind, ok := s.Objects[i].tree(); ok {
			kinds = append(kinds, kind)
		}
	}
	roots, err := sqlite.WriteTrees(file, kinds)
	if err != nil {
		return nil, err
	}
	return func(c *sqlite.Conn) error { return s.fill(c, roots) }, nil
}

func (s *Shape) fill(c *sqlite.Conn, roots []int64) error {
	if err := c.Exec("BEGIN"); err != nil {
		return err
	}
	if err := c.WriteSchema(func() error { return s.name(c, roots) }); err != nil {
		return err
	}
	for i := range s.Objects {
		if o := &s.Objects[i]; o.Virtual {
			if err := c.Exec(o.SQL); err != nil {
				return &ShapeError{err}
			}
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

// name puts what isn't virtual into sqlite_schema: each with the next tree, if it has one.
func (s *Shape) name(c *sqlite.Conn, roots []int64) error {
	var rows [][]sqlite.Param
	for i := range s.Objects {
		o := &s.Objects[i]
		if o.Virtual {
			continue
		}
		root := int64(0)
		if _, ok := o.tree(); ok {
			root, roots = roots[0], roots[1:]
		}
		rows = append(rows, []sqlite.Param{text(o.Type), text(o.Name), text(o.Table), {Value: sqlite.Value{Kind: sqlite.Integer, Int: root}}, text(o.SQL)})
	}
	return c.ForEach("INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES(?,?,?,?,nullif(?,''))", rows)
}

func text(s string) sqlite.Param {
	return sqlite.Param{Value: sqlite.Value{Kind: sqlite.Text, Bytes: []byte(s)}}
}
