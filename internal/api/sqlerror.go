package api

import (
	"net/http"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/wire"
)

// sqlDetail is the contract's errorDetail.
type sqlDetail struct {
	kind       string
	message    string
	table      string
	column     string
	columns    []columnRef
	constraint string
	near       string
	hint       string
	offset     int // byte of the SQL, or -1
}

type columnRef struct{ table, column string }

func (d *sqlDetail) append(b []byte, index int) []byte {
	text := func(key, value string) {
		if value != "" {
			b = append(b, ',', '"')
			b = append(b, key...)
			b = append(b, '"', ':')
			b = wire.AppendString(b, value)
		}
	}
	b = append(b, `{"kind":`...)
	b = wire.AppendString(b, d.kind)
	b = append(b, `,"message":`...)
	b = wire.AppendString(b, d.message)
	text("table", d.table)
	text("column", d.column)
	if len(d.columns) > 0 {
		b = append(b, `,"columns":[`...)
		for i, c := range d.columns {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"table":`...)
			b = wire.AppendString(b, c.table)
			b = append(b, `,"column":`...)
			b = wire.AppendString(b, c.column)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	text("constraint", d.constraint)
	text("near", d.near)
	text("hint", d.hint)
	if d.offset >= 0 {
		b = append(b, `,"offset":`...)
		b = wire.AppendInt(b, int64(d.offset))
	}
	if index >= 0 {
		b = append(b, `,"statementIndex":`...)
		b = wire.AppendInt(b, int64(index))
	}
	return append(b, '}')
}

// The kinds of errorDetail.
const (
	kindUnique        = "unique_violation"
	kindNotNull       = "not_null_violation"
	kindForeignKey    = "fk_violation"
	kindCheck         = "check_violation"
	kindUnknownTable  = "unknown_table"
	kindUnknownColumn = "unknown_column"
	kindSyntax        = "syntax_error"
	kindType          = "type_mismatch"
	kindLocked        = "database_locked"
	kindTooMany       = "too_many_params"
	kindReadonly      = "readonly"
	kindUnknown       = "unknown"
)

// sqlFault tells of an error of a statement. sql is the statement, if it is known; SQLite gives names only in its
// messages, so they are read from there. table is the one that it writes to, if it is known.
func sqlFault(e *sqlite.Error, sql []byte, table string) *fault {
	d := &sqlDetail{kind: kindUnknown, message: e.Message, offset: e.Offset}
	status := http.StatusBadRequest
	_, after, _ := strings.Cut(e.Message, ": ")
	switch e.Code {
	case sqlite.CodeConstraintUnique, sqlite.CodeConstraintPrimaryKey, sqlite.CodeConstraintRowid:
		d.kind = kindUnique
		d.columnsOf(after, table)
		if verb(sql) == "INSERT" || verb(sql) == "REPLACE" {
			d.hint = "add ON CONFLICT … DO UPDATE (or DO NOTHING) if a row that is there already should win or be updated"
			if len(d.columns) > 0 {
				d.hint = "add ON CONFLICT(" + joinColumns(d.columns) + ") DO UPDATE SET … (or DO NOTHING) if the row may be there already"
			}
		} else {
			d.hint = "another row has the same value already"
		}
	case sqlite.CodeConstraintNotNull:
		d.kind = kindNotNull
		d.columnsOf(after, table)
		d.hint = "give the column a value, or a DEFAULT in the table"
	case sqlite.CodeConstraintForeignKey:
		d.kind = kindForeignKey
		d.hint = "the referenced row must be there, and a row that others refer to can't go: insert parents first, delete children first"
	case sqlite.CodeConstraintCheck:
		d.kind = kindCheck
		d.constraint = after
	case sqlite.CodeConstraintTrigger:
		d.kind = kindCheck
	case sqlite.CodeConstraintDatatype:
		d.kind = kindType
		// "cannot store TEXT value in INTEGER column t.a"
		if i := strings.LastIndex(e.Message, " column "); i >= 0 {
			d.columnsOf(e.Message[i+len(" column "):], table)
		}
		d.hint = "the table is STRICT: send a value of the column's type"
	case sqlite.CodeMismatch:
		d.kind = kindType
		d.hint = "an INTEGER PRIMARY KEY takes whole numbers only"
	default:
		status = d.byPrimary(e, after)
	}
	if d.kind == kindSyntax {
		d.limited(verb(sql))
	}
	f := newFault(status, d.kind, e.Message, d.hint)
	if d.kind == kindUnknown {
		f.code = "sql_error"
	}
	f.detail = d
	return f
}

// byPrimary reads the errors that have no extended code of their own.
func (d *sqlDetail) byPrimary(e *sqlite.Error, after string) int {
	switch e.Code.Primary() {
	case sqlite.CodeConstraint:
		d.kind = kindCheck
	case sqlite.CodeBusy, sqlite.CodeLocked:
		d.kind = kindLocked
	case sqlite.CodeReadonly:
		d.kind = kindReadonly
		return http.StatusForbidden
	case sqlite.CodeTooBig:
		d.hint = "a value or a row may have at most 16 MB"
	case sqlite.CodeRange:
		d.kind = kindTooMany
	case sqlite.CodeMismatch:
		d.kind = kindType
	case sqlite.CodeSchema:
		d.hint = "the schema changed while the statement ran; send it again"
	case sqlite.CodeCorrupt:
		d.hint = "the index of a virtual table does not fit its content: for FTS5, INSERT INTO t(t) VALUES('rebuild') makes it anew"
		if e.Code == sqlite.CodeCorruptSequence {
			d.hint = "sqlite_sequence holds something else than numbers for tables: correct it"
		}
	case sqlite.CodeError:
		d.byMessage(e.Message, after)
	}
	return http.StatusBadRequest
}

func (d *sqlDetail) byMessage(message, after string) {
	switch {
	case strings.HasPrefix(message, "no such table: "):
		d.kind = kindUnknownTable
		d.table = strings.TrimPrefix(after, "main.")
	case strings.HasPrefix(message, "no such view: "):
		d.kind = kindUnknownTable
		d.table = after
	case strings.HasPrefix(message, "no such column: "):
		d.kind = kindUnknownColumn
		d.unknownColumn(strings.Trim(after, `"`))
	case strings.Contains(message, " has no column named "): // "table t has no column named x"
		d.kind = kindUnknownColumn
		table, column, _ := strings.Cut(strings.TrimPrefix(message, "table "), " has no column named ")
		d.table, d.column = table, column
	case strings.HasPrefix(message, `near "`):
		d.kind = kindSyntax
		if i := strings.LastIndex(message, `": `); i > 6 {
			d.near = message[6:i]
		}
	case strings.HasPrefix(message, "incomplete input"), strings.HasPrefix(message, "unrecognized token"),
		strings.Contains(message, "syntax error"):
		d.kind = kindSyntax
	case strings.HasPrefix(message, "too many SQL variables"), strings.HasPrefix(message, "variable number must be between"):
		d.kind = kindTooMany
	case strings.HasPrefix(message, "cannot modify "), strings.HasSuffix(message, " may not be modified"):
		d.kind = kindReadonly // a view, or a table that SQLite makes up
	case strings.HasPrefix(message, "datatype mismatch"):
		d.kind = kindType
	}
}

// limited knows what SQLite has as an option of its build, and ours lacks: DELETE and UPDATE with ORDER BY and LIMIT.
func (d *sqlDetail) limited(verb string) {
	if verb != "DELETE" && verb != "UPDATE" || !strings.EqualFold(d.near, "LIMIT") && !strings.EqualFold(d.near, "ORDER") {
		return
	}
	d.hint = verb + " takes no ORDER BY and no LIMIT here: say which rows, with WHERE rowid IN (SELECT rowid FROM … LIMIT n)"
}

func (d *sqlDetail) unknownColumn(name string) {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		d.table, d.column = name[:i], name[i+1:]
		return
	}
	d.column = name
}

// columnsOf reads "t.a, t.b". Where the statement's table is known its name may hold a dot, and a column's what stands
// between two of them.
func (d *sqlDetail) columnsOf(list, table string) {
	if rest, ok := strings.CutPrefix(list, table+"."); ok && table != "" {
		d.table = table
		for column := range strings.SplitSeq(rest, ", "+table+".") {
			d.columns = append(d.columns, columnRef{table, column})
		}
		d.column = d.columns[0].column
		return
	}
	for part := range strings.SplitSeq(list, ", ") {
		t, c, ok := strings.Cut(part, ".")
		if !ok {
			d.constraint = strings.TrimPrefix(strings.Trim(part, "'"), "index '") // "index 'name'": on an expression
			continue
		}
		d.columns = append(d.columns, columnRef{t, c})
	}
	if len(d.columns) > 0 {
		d.table, d.column = d.columns[0].table, d.columns[0].column
	}
}

// plainOrQuoted is a name as it can stand in SQL.
func plainOrQuoted(name string) string {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return quoteName(name)
		}
	}
	if name == "" {
		return quoteName(name)
	}
	return name
}

func joinColumns(cs []columnRef) string {
	names := make([]string, len(cs))
	for i, c := range cs {
		names[i] = plainOrQuoted(c.column)
	}
	return strings.Join(names, ", ")
}

// verb is the first word of a statement, in upper case, for a hint: nothing is decided by it.
func verb(sql []byte) string {
	s := string(sql[:min(len(sql), 4096)])
	for {
		s = strings.TrimLeft(s, " \t\r\n;\ufeff")
		switch {
		case strings.HasPrefix(s, "--"):
			_, s, _ = strings.Cut(s, "\n")
			continue
		case strings.HasPrefix(s, "/*"):
			_, s, _ = strings.Cut(s, "*/")
			continue
		}
		break
	}
	end := strings.IndexFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
	if end >= 0 {
		s = s[:end]
	}
	s = strings.ToUpper(s)
	if s == "WITH" {
		up := strings.ToUpper(string(sql[:min(len(sql), 4096)]))
		for _, v := range []string{"INSERT", "UPDATE", "DELETE"} {
			if strings.Contains(up, v+" ") {
				return v
			}
		}
	}
	return s
}
