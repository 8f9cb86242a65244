package api

import (
	"net/http"
	"strings"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

// What a token may do beside running statements, on which the gate decides.

// callerOf is a token as the gate knows it.
func callerOf(t *catalog.Token) gate.Caller {
	c := gate.Caller{TokenID: t.ID, Role: t.Role}
	if tables, scoped := t.Tables(); scoped {
		c.Scope = tables
	}
	return c
}

// needAdmin refuses a token of a lower role; what is what it cannot do.
func (x *exchange) needAdmin(what string) error {
	if gate.LevelOf(x.token.Role) < gate.LevelAdmin {
		return gate.RefuseRole(x.token.Role, what, gate.LevelAdmin)
	}
	return nil
}

// needUnscoped refuses a token of a lower role than admin, and one that is held to a database or to tables.
func (x *exchange) needUnscoped(what string) error {
	if err := x.needAdmin(what); err != nil {
		return err
	}
	if x.token.Database != "" {
		return errNotScoped
	}
	return x.needAllTables(what)
}

// needAllTables refuses a token that is held to some tables.
func (x *exchange) needAllTables(what string) error {
	if x.token.TableScope != nil {
		return newFault(http.StatusForbidden, gate.CodeScope, "Token scope does not include all tables: it cannot run "+what, "use a token without tableScope")
	}
	return nil
}

// hiddenName looks in a statement that could not be compiled for a table that the caller may not know of: else the
// engine's words about it, "no such column", would tell of its columns.
func hiddenName(tx *store.Tx, c *gate.Caller, sql []byte) error {
	if c.Whole() {
		return nil
	}
	hidden := map[string]bool{}
	for _, name := range namesOf(tx, objectsSQL) {
		if !c.Sees(name) && !gate.IsSystem(name) {
			hidden[sqlite.Fold(name)] = true
		}
	}
	if len(hidden) == 0 {
		return nil
	}
	for _, name := range identifiers(string(sql)) {
		if hidden[sqlite.Fold(name)] {
			return gate.RefuseTable(name)
		}
	}
	return nil
}

// identifiers are all words of a statement that could be a name: those without quotes, inside of texts and comments too, and what
// stands in quotes of any kind.
func identifiers(sql string) []string {
	names := strings.FieldsFunc(sql, func(r rune) bool { return r < 0x80 && !wordByte(byte(r)) })
	for i := 0; i < len(sql); i++ {
		end := sql[i]
		switch end {
		case '[':
			end = ']'
		case '"', '`', '\'':
		default:
			continue
		}
		var b strings.Builder
		for i++; i < len(sql); i++ {
			if sql[i] == end {
				if end == ']' || i+1 >= len(sql) || sql[i+1] != end {
					break
				}
				i++ // a doubled quote is one
			}
			b.WriteByte(sql[i])
		}
		names = append(names, b.String())
	}
	return names
}

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

const objectsSQL = "SELECT name FROM sqlite_schema WHERE type IN ('table','view')"

// schemaNames are the tables and views of a schema, and which table refers to which.
type schemaNames struct{ objects, references map[string]bool }

const referencesSQL = `SELECT m.name || char(0) || f."table" FROM sqlite_schema m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'`

// namesBefore are the names before a statement of a scoped caller that changes the schema.
func namesBefore(tx *store.Tx) schemaNames {
	n := schemaNames{map[string]bool{}, map[string]bool{}}
	for _, name := range namesOf(tx, objectsSQL) {
		n.objects[name] = true
	}
	for _, pair := range namesOf(tx, referencesSQL) {
		n.references[pair] = true
	}
	return n
}

// refuseNew refuses what only running the statement tells: the new name of ALTER TABLE … RENAME, and a foreign key to a table
// that the caller may not touch, which would tell of its keys.
func (n schemaNames) refuseNew(tx *store.Tx, c *gate.Caller) error {
	for _, name := range namesOf(tx, objectsSQL) {
		if base := sqlite.ShadowOf(name); !n.objects[name] && !c.Sees(name) && (base == "" || !c.Sees(base)) {
			return gate.RefuseTable(name)
		}
	}
	for _, pair := range namesOf(tx, referencesSQL) {
		child, parent, _ := strings.Cut(pair, "\x00")
		if !n.references[pair] && c.Sees(child) && !c.Sees(parent) {
			return gate.RefuseTable(parent)
		}
	}
	return nil
}
