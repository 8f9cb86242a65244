package gate

import (
	"fmt"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// QueryLogTable is the one system table that clients read: the log of the database's statements.
const QueryLogTable = "_persql_meta_query_log"

func hasPrefix(name, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// IsSystem tells whether a name is the system's: SQLite's own, or the server's. Names compare without case.
func IsSystem(name string) bool { return hasPrefix(name, "sqlite_") || hasPrefix(name, "_persql_") }

func refuseSystem(name string) error {
	return &Refusal{Code: CodeSystem, Message: fmt.Sprintf("%s is a system object", name),
		Hint: "names that begin with sqlite_ or _persql_ are reserved"}
}

// schemaTable tells whether name is SQLite's table of the schema, under any of its names.
func schemaTable(name string) bool {
	switch strings.ToLower(name) {
	case "sqlite_schema", "sqlite_master", "sqlite_temp_schema", "sqlite_temp_master":
		return true
	}
	return false
}

// statistics tells whether name is one of SQLite's tables that dumps carry: the last values of AUTOINCREMENT and
// what ANALYZE found.
func statistics(name string) bool {
	return strings.EqualFold(name, "sqlite_sequence") || hasPrefix(name, "sqlite_stat")
}

func permitRead(table string) error {
	switch {
	case off("system read"):
		return nil
	case hasPrefix(table, "pragma_"):
		return permitPragmaTable(table)
	case refusedModules[sqlite.Fold(table)] != "":
		return refuseSystem(table)
	case !IsSystem(table), schemaTable(table), statistics(table), strings.EqualFold(table, QueryLogTable):
		return nil
	}
	return refuseSystem(table)
}

func permitWrite(a sqlite.Access) error {
	switch {
	case off("system write"):
		return nil
	case schemaTable(a.Name):
		// What CREATE, ALTER and DROP do, by SQLite's own hand; ALTER looks at temporary objects too. A statement that
		// writes there itself is refused by SQLite: the connection is in defensive mode. CREATE TEMP has an action of
		// its own, which is refused.
		return nil
	case statistics(a.Name), !IsSystem(a.Name) && !strings.EqualFold(a.Name, "dbstat"):
		return nil
	}
	return refuseSystem(a.Name)
}

// ReservedName tells whether a table of the name would take the place of what SQLite has under it: a pragma's function, which the
// server's own statements use too, or a module that nobody may read.
func ReservedName(name string) bool {
	return hasPrefix(name, "pragma_") || refusedModules[sqlite.Fold(name)] != ""
}

// permitName decides on the name of an object that is made, altered or dropped.
func permitName(name string) error {
	// With a _ behind it, since a virtual table of the name would have shadow tables that begin so.
	if (hasPrefix(name+"_", "_persql_") || hasPrefix(name, "sqlite_persql_")) && !off("system name") {
		return refuseSystem(name)
	}
	if ReservedName(name) && !off("system name") {
		return &Refusal{Code: CodeSystem, Message: fmt.Sprintf("The name %s is reserved for a table-valued function of SQLite's", name), Hint: "choose another name"}
	}
	return nil // SQLite itself guards its own names; it makes sqlite_sequence and its indexes under this code
}

// modules are the virtual tables that a client may make.
var modules = map[string]bool{"fts5": true, "fts5vocab": true, "rtree": true, "rtree_i32": true, "geopoly": true}

func permitModule(name string) error {
	if modules[strings.ToLower(name)] || off("module") {
		return nil
	}
	return &Refusal{Code: CodeModule, Message: fmt.Sprintf("Virtual tables of the module %s are not allowed", name),
		Hint: "fts5, fts5vocab, rtree, rtree_i32 and geopoly are"}
}
