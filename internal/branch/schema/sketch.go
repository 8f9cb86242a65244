package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/persqld/persqld/internal/sqlite"
)

// ErrFault is a fault inside the engine, whose connections were given up.
var ErrFault = errors.New("fault in the engine")

// workshop is where schemas are tried out: databases in memory without rows, on one thread.
type workshop struct {
	ctx    context.Context
	thread *sqlite.Thread
	conns  []*sqlite.Conn
	loner  *sketch // for tables that are tried alone
}

// sketch is one schema in a database of its own.
type sketch struct {
	w      *workshop
	conn   *sqlite.Conn
	known  map[string]*facts       // what was asked since the last statement
	shapes map[string]sqlite.Shape // likewise
}

// inWorkshop runs f and puts everything away.
func inWorkshop(ctx context.Context, f func(*workshop) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &workshop{ctx: ctx, thread: sqlite.NewThread()}
	defer func() {
		if r := recover(); r != nil {
			// The thread's stack is where the fault left it: it is given up too.
			err = fmt.Errorf("%w: %v", ErrFault, r)
			for _, c := range w.conns {
				err = errors.Join(err, c.Abandon())
			}
			return
		}
		for _, c := range w.conns {
			err = errors.Join(err, c.Close())
		}
		w.thread.Close()
	}()
	if err := f(w); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return ctx.Err()
}

// sketch opens an empty database. Foreign keys are off, as they are where the plan's statements run.
func (w *workshop) sketch() (*sketch, error) {
	c, err := sqlite.OpenScratch(sqlite.Scratch{}, w.thread)
	if err != nil {
		return nil, err
	}
	w.conns = append(w.conns, c)
	c.Watch(w.ctx.Err)
	return &sketch{w: w, conn: c}, nil
}

// dismiss closes a database that isn't needed any more.
func (w *workshop) dismiss(s *sketch) {
	w.conns = slices.DeleteFunc(w.conns, func(c *sqlite.Conn) bool { return c == s.conn })
	_ = s.conn.Close() // it is in memory
}

// load opens a database with a schema. failed, if there is one, is told of objects that SQLite doesn't take; else they are an error.
func (w *workshop) load(objects []Object, failed func(*Object, error)) (*sketch, error) {
	s, err := w.sketch()
	if err != nil {
		return nil, err
	}
	if err := s.run("BEGIN"); err != nil {
		return nil, err
	}
	for _, stage := range stages {
		for i := range objects {
			o := &objects[i]
			if stageOf(o) != stage {
				continue
			}
			err := s.create(o)
			switch {
			case err == nil:
			case w.ctx.Err() != nil || failed == nil:
				return nil, fmt.Errorf("%s %s: %w", o.Type, sqlite.Quote(o.Name), err)
			default:
				failed(o, err)
			}
		}
	}
	return s, s.run("COMMIT")
}

// stages is the order in which objects are made. A virtual table may ask for an ordinary one.
var stages = []string{"table", "virtual", "index", "view", "trigger"}

func stageOf(o *Object) string {
	if moduleOf(o) != "" {
		return "virtual"
	}
	return o.Type
}

// create runs an object's text, which nothing but a CREATE may be.
func (s *sketch) create(o *Object) error {
	if t, ok := lex(o.SQL); !ok || t.nameAt() < 0 {
		return errors.New("its definition is no CREATE statement")
	}
	return s.run(o.SQL)
}

// run runs a statement to its end.
func (s *sketch) run(sql string) error {
	s.known, s.shapes = nil, nil
	return s.conn.Exec(sql)
}

// rows runs a query with texts for its parameters.
func (s *sketch) rows(sql string, row func(*sqlite.Stmt) error, params ...string) error {
	q, err := s.conn.Own(sql)
	if err != nil {
		return err
	}
	defer q.Done()
	var bound []sqlite.Param
	for _, p := range params {
		bound = append(bound, sqlite.Param{Value: sqlite.Value{Kind: sqlite.Text, Bytes: []byte(p)}})
	}
	if err := q.Bind(bound); err != nil {
		return err
	}
	for {
		more, err := q.Step()
		if err != nil || !more {
			return err
		}
		if err := row(q); err != nil {
			return err
		}
	}
}

// compiles tells what SQLite has against a statement.
func (s *sketch) compiles(sql string) error {
	q, err := s.conn.Own(sql)
	if err == nil {
		q.Done()
	}
	return err
}

// try runs f, and takes back what it did if that fails or keep is false.
func (s *sketch) try(keep bool, f func() error) error {
	if err := s.run("SAVEPOINT try"); err != nil {
		return err
	}
	err := f()
	if err == nil && keep {
		return s.run("RELEASE try")
	}
	undo := errors.Join(s.run("ROLLBACK TO try"), s.run("RELEASE try"))
	s.conn.Altered()
	s.conn.DropStatements()
	if undo != nil {
		return fmt.Errorf("undo a trial: %w", undo)
	}
	return err
}

// objects is the schema as it has become.
func (s *sketch) objects() ([]Object, error) {
	return Read(func(sql string, row func(*sqlite.Stmt) error) error { return s.rows(sql, row) })
}

// facts is what SQLite made of a table's definition.
type facts struct {
	columns []field
	shape   sqlite.Shape
}

type field struct {
	name    string
	notNull bool
	dflt    bool // it has a default
	key     int  // its place in the primary key, from 1
	hidden  int  // 1 a module's own, 2 generated, 3 generated and stored
}

// facts are those of a table or view; nil if there is none that compiles.
func (s *sketch) facts(name string) (*facts, error) {
	if f, ok := s.known[fold(name)]; ok {
		return f, nil
	}
	if s.shapes == nil {
		shapes, err := s.conn.Shapes()
		if err != nil {
			return nil, err
		}
		s.known, s.shapes = map[string]*facts{}, shapes
	}
	f := &facts{shape: s.shapes[fold(name)]}
	err := s.rows("SELECT name, \"notnull\", dflt_value IS NOT NULL, pk, hidden FROM pragma_table_xinfo(?1)", func(q *sqlite.Stmt) error {
		f.columns = append(f.columns, field{string(q.Column(0).Bytes), q.Column(1).Int != 0, q.Column(2).Int != 0, int(q.Column(3).Int), int(q.Column(4).Int)})
		return nil
	}, name)
	if err != nil {
		return nil, err
	}
	s.known[fold(name)] = f
	return f, nil
}

// find is the column of that name.
func (f *facts) find(name string) *field {
	if i := slices.IndexFunc(f.columns, func(c field) bool { return fold(c.name) == fold(name) }); i >= 0 {
		return &f.columns[i]
	}
	return nil
}

// alias is the column that is the rowid's other name, "" if there is none.
func (f *facts) alias() string {
	if f.shape.Key {
		for _, c := range f.columns {
			if c.key == 1 {
				return c.name
			}
		}
	}
	return ""
}

// rowid is a name by which the rowid can be asked for, "" if it has none.
func (f *facts) rowid() string {
	if !f.shape.Rowid && !f.shape.Virtual {
		return ""
	}
	if a := f.alias(); a != "" {
		return a
	}
	for _, name := range []string{"rowid", "_rowid_", "oid"} {
		if f.find(name) == nil {
			return name
		}
	}
	return ""
}

// parents are the tables that a table's foreign keys name.
func (s *sketch) parents(table string) (names []string, err error) {
	err = s.rows("SELECT DISTINCT \"table\" FROM pragma_foreign_key_list(?1)", func(q *sqlite.Stmt) error {
		names = append(names, string(q.Column(0).Bytes))
		return nil
	}, table)
	return names, err
}
