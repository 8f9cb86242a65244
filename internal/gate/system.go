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

// RefuseName is the refusal of a system object, or of a name that is reserved for one.
func RefuseName(name string) *Refusal {
	return &Refusal{Code: CodeSystem, Message: fmt.Sprintf("%s is a system object", name),
		Hint: "names that begin with sqlite_, pragma_ or _persql_ are reserved, and those of SQLite's own tables of raw pages"}
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
		return RefuseName(table)
	case !IsSystem(table), schemaTable(table), statistics(table), strings.EqualFold(table, QueryLogTable):
		return nil
	}
	return RefuseName(table)
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
	return RefuseName(a.Name)
}

// ReservedName tells whether a client may give a table no such name: it is the server's, or a table of it would take the place of
// what SQLite has under it, a pragma's function, which the server's own statements use too, or a module that nobody may read.
// SQLite itself guards its own names; it makes sqlite_sequence and its indexes as if a client did.
func ReservedName(name string) bool { return serversName(name) || sqlitesFunction(name) }

// serversName compares with a _ behind the name, since a virtual table of it would have shadow tables that begin so.
func serversName(name string) bool {
	return hasPrefix(name+"_", "_persql_") || hasPrefix(name, "sqlite_persql_")
}

func sqlitesFunction(name string) bool {
	return hasPrefix(name, "pragma_") || refusedModules[sqlite.Fold(name)] != ""
}

// permitNew decides on the name of an object that is made, permitOld of one that is altered or dropped: it may be from before
// its name was reserved.
func permitNew(name string) error {
	if ReservedName(name) && !off("system name") {
		return RefuseName(name)
	}
	return nil
}

func permitOld(name string) error {
	if serversName(name) && !off("system name") {
		return RefuseName(name)
	}
	return nil
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
