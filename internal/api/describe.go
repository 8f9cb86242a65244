package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/wire"
)

// reply makes v the answer's data.
func (x *exchange) reply(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	if int64(len(data)) > x.s.opt.MaxResult {
		return errResultTooLarge
	}
	if err := x.charge(len(x.body) + 2*len(data)); err != nil {
		return err
	}
	x.success()
	x.out = append(append(x.out, data...), '}')
	return nil
}

// read runs a job of the server's own on the database that the path names.
func (x *exchange) read(job func(tx *store.Tx) error) error {
	if err := x.openDatabase(false); err != nil {
		return err
	}
	return x.do(store.JobFunc(job))
}

// tables serves GET …/tables.
func (s *Server) tables(x *exchange) error {
	type entry struct {
		Name     string `json:"name"`
		RowCount *int64 `json:"rowCount"` // null for a table that can't be read
	}
	var list []entry
	err := x.read(func(tx *store.Tx) error {
		list = []entry{}
		tables, err := userTables(tx, &x.gate.Caller)
		for i := range tables {
			if err := countRows(tx, &x.gate.Caller, &tables[i]); err != nil {
				if err := tables[i].breaks(tx, err); err != nil {
					return err
				}
			}
			list = append(list, entry{tables[i].Table, tables[i].RowCount})
		}
		return err
	})
	if err != nil {
		return err
	}
	return x.reply(list)
}

// schema serves GET …/schema.
func (s *Server) schema(x *exchange) error {
	var list []schemaObject
	err := x.read(func(tx *store.Tx) (err error) {
		list, err = schemaObjects(tx, &x.gate.Caller)
		return err
	})
	if err != nil {
		return err
	}
	return x.reply(list)
}

// describe serves GET …/describe.
func (s *Server) describe(x *exchange) error {
	switch format := x.r.URL.Query().Get("format"); format {
	case "", "json":
	case "compact":
		return s.describeCompact(x)
	default:
		return newFault(http.StatusBadRequest, codeBadRequest, "format must be json or compact", "")
	}
	var info schemaInfo
	err := x.read(func(tx *store.Tx) (err error) {
		info, err = readSchema(tx, &x.gate.Caller, true)
		return err
	})
	if err != nil {
		return err
	}
	return x.reply(info)
}

// describeCompact serves GET …/describe/compact: the schema as one text for a prompt, a line a table.
func (s *Server) describeCompact(x *exchange) error {
	var info schemaInfo
	err := x.read(func(tx *store.Tx) (err error) {
		info, err = readSchema(tx, &x.gate.Caller, true)
		return err
	})
	if err != nil {
		return err
	}
	return x.reply(compact(&info))
}

func compact(info *schemaInfo) string {
	var b strings.Builder
	if info.Description != nil {
		fmt.Fprintf(&b, "# %s\n", oneLine(*info.Description))
	}
	for i := range info.Tables {
		t := &info.Tables[i]
		b.WriteString(oneLine(t.Table))
		b.WriteByte('(')
		for j := range t.Columns {
			c := &t.Columns[j]
			if j > 0 {
				b.WriteString(", ")
			}
			b.WriteString(oneLine(c.Name))
			if c.Type != "" {
				b.WriteString(" " + oneLine(c.Type))
			}
			if c.PrimaryKey {
				b.WriteString(" PK")
			} else if c.NotNull {
				b.WriteString(" NOT NULL")
			}
			for _, fk := range t.ForeignKeys {
				if strings.EqualFold(fk.Column, c.Name) {
					fmt.Fprintf(&b, " -> %s.%s", oneLine(fk.ReferencesTable), oneLine(fk.ReferencesColumn))
				}
			}
			if c.Description != nil {
				fmt.Fprintf(&b, " {%s}", oneLine(*c.Description))
			}
		}
		if t.broken != "" {
			b.WriteString(") can't be read: " + oneLine(t.broken))
		} else if t.hidden {
			b.WriteString(") reads what the token may not see")
		} else {
			fmt.Fprintf(&b, ") %d rows", t.rows())
		}
		if t.Description != nil {
			b.WriteString(" -- " + oneLine(*t.Description))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// describeRequest is the body of PUT …/describe. What it doesn't name stays.
type describeRequest struct {
	DatabaseDescription *string `json:"databaseDescription"`
	Tables              []struct {
		Table       string  `json:"table"`
		Description *string `json:"description"`
		Columns     []struct {
			Column      string  `json:"column"`
			Description *string `json:"description"`
		} `json:"columns"`
	} `json:"tables"`
}

// maxNote is the longest description, in characters.
const maxNote = 4000

// putDescribe serves PUT …/describe.
func (s *Server) putDescribe(x *exchange) error {
	if err := x.refuseKey(); err != nil {
		return err
	}
	var req describeRequest
	if err := x.object(&req); err != nil {
		return err
	}
	notes, err := req.notes()
	if err != nil {
		return err
	}
	if err := x.needAdmin("PUT …/describe"); err != nil {
		return err
	}
	if req.DatabaseDescription != nil {
		if err := x.needAllTables("PUT …/describe of the database"); err != nil {
			return err
		}
	}
	var info schemaInfo
	err = x.read(func(tx *store.Tx) (err error) {
		info, err = readSchema(tx, &x.gate.Caller, false)
		if err != nil {
			return err
		}
		for _, n := range notes {
			if err := info.mustHave(n); err != nil {
				return err
			}
			if err := tx.SetNote(n); err != nil {
				return err
			}
		}
		info, err = readSchema(tx, &x.gate.Caller, true)
		return err
	})
	if err != nil {
		return err
	}
	var tables []string
	for _, n := range notes {
		if n.Table != "" && !slices.Contains(tables, n.Table) {
			tables = append(tables, n.Table)
		}
	}
	x.record("database.described", map[string]any{"tables": tables})
	return x.reply(info)
}

func (req *describeRequest) notes() ([]store.Note, error) {
	var notes []store.Note
	add := func(n store.Note, text *string) error {
		if text == nil {
			return nil
		}
		if utf8.RuneCountInString(*text) > maxNote {
			return newFault(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("A description has at most %d characters", maxNote), "")
		}
		n.Text = *text
		notes = append(notes, n)
		return nil
	}
	if err := add(store.Note{}, req.DatabaseDescription); err != nil {
		return nil, err
	}
	for _, t := range req.Tables {
		if t.Table == "" {
			return nil, newFault(http.StatusBadRequest, codeBadRequest, "Each of tables needs a table", "")
		}
		if err := add(store.Note{Table: t.Table}, t.Description); err != nil {
			return nil, err
		}
		for _, c := range t.Columns {
			if c.Column == "" {
				return nil, newFault(http.StatusBadRequest, codeBadRequest, "Each of columns needs a column", "")
			}
			if err := add(store.Note{Table: t.Table, Column: c.Column}, c.Description); err != nil {
				return nil, err
			}
		}
	}
	return notes, nil
}

// mustHave refuses a note about a table or column that isn't there.
func (info *schemaInfo) mustHave(n store.Note) error {
	if n.Table == "" {
		return nil
	}
	for i := range info.Tables {
		t := &info.Tables[i]
		if !strings.EqualFold(t.Table, n.Table) {
			continue
		}
		if n.Column == "" {
			return nil
		}
		for j := range t.Columns {
			if strings.EqualFold(t.Columns[j].Name, n.Column) {
				return nil
			}
		}
		return unknown(kindUnknownColumn, t.Table, n.Column, "no such column: "+n.Table+"."+n.Column)
	}
	return unknown(kindUnknownTable, n.Table, "", "no such table: "+n.Table)
}

func unknown(kind, table, column, message string) *fault {
	f := newFault(http.StatusBadRequest, kind, message, "GET …/describe shows what there is")
	f.detail = &sqlDetail{kind: kind, message: message, table: table, column: column, hint: f.hint, offset: -1}
	return f
}

// validate serves POST …/validate: the statement is compiled and its parameters are bound, as for a query. Nothing runs.
func (s *Server) validate(x *exchange) error {
	if err := x.readStatement(); err != nil {
		return err
	}
	x.gate.Batch, x.unruled = true, true
	err := x.do(store.JobFunc(func(tx *store.Tx) error {
		x.run.start(tx.Began())
		st, err := x.run.prepare(tx, x.one.SQL)
		if err != nil {
			return err
		}
		defer st.Done()
		return st.Bind(x.one.Params)
	}))
	if err == nil {
		x.success()
		x.out = append(x.out, `{"ok":true}}`...)
		return nil
	}
	if x.lent {
		return err
	}
	f := s.faultOf(err)
	if f.status != http.StatusBadRequest && f.status != http.StatusForbidden {
		return err
	}
	x.success()
	b := append(x.out, `{"ok":false,"error":`...)
	b = wire.AppendString(b, f.message)
	if f.detail != nil {
		b = append(b, `,"errorDetail":`...)
		b = f.detail.append(b, -1)
	}
	x.out = append(b, `}}`...)
	return nil
}

// readStatement reads a body like a query's, and finds the database.
func (x *exchange) readStatement() error {
	if err := x.readBody(); err != nil {
		return err
	}
	if err := wire.DecodeQuery(x.body, x.s.limits, &x.one); err != nil {
		return err
	}
	return x.openDatabase(false)
}

const explainPrefix = "EXPLAIN QUERY PLAN "

// explain serves POST …/explain.
func (s *Server) explain(x *exchange) error {
	if err := x.readStatement(); err != nil {
		return err
	}
	x.gate.Batch, x.unruled = true, true
	err := x.do(store.JobFunc(func(tx *store.Tx) error {
		r := &x.run
		r.start(tx.Began())
		// First as it is, so that it is one statement and errors tell of the client's own text.
		st, err := r.prepare(tx, x.one.SQL)
		if err != nil {
			return err
		}
		if gate.Mixed(st) {
			st.Done()
			return &gate.Refusal{Code: gate.CodePolicy, Message: "A plan of the statement could tell of rows that policies hide", Hint: "use an admin token without claims"}
		}
		explained, text := st.Explain, st.SQL() // without the semicolons and comments that may stand before it
		st.Done()
		if explained {
			return newFault(http.StatusBadRequest, codeBadRequest, "The statement is an EXPLAIN already", "send it without EXPLAIN")
		}
		st, err = r.prepare(tx, append([]byte(explainPrefix), text...))
		if err != nil {
			return err
		}
		defer st.Done()
		params := x.one.Params
		if len(params) == 0 {
			params = nulls(st.Params())
		}
		x.success()
		r.b, r.first, r.hide, r.width, r.checks = append(x.out, `{"plan":[`...), true, -1, st.Columns(), nil
		_, err = tx.Run(st, params, r.row)
		x.out, r.b = r.b, nil
		if err != nil {
			return r.explain(tx, err, x.one.SQL, "")
		}
		x.out = append(x.out, `]}}`...)
		return nil
	}))
	return err
}
