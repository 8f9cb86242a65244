package gate

import (
	"fmt"

	"github.com/persqld/persqld/internal/sqlite"
)

// scopeUse says what a pragma tells of the tables.
type scopeUse uint8

const (
	ofNone  scopeUse = iota // nothing
	ofTable                 // of the one that its argument names; of all without an argument
	ofIndex                 // of the index that its argument names
	ofAll                   // of all
)

// pragmaUse says who may use a pragma, and how.
type pragmaUse struct {
	need     Level
	argument bool  // it may have one: the name of a table or index, or a number; else an argument would change a setting
	sets     Level // what an argument needs, where that is more
	scope    scopeUse
	rows     bool // it tells of the file's content, beside what its tables show
}

// pragmas is every pragma that may be used, as a statement or as a pragma_… function.
var pragmas = map[string]pragmaUse{
	"table_info":         {need: LevelRead, argument: true, scope: ofTable},
	"table_xinfo":        {need: LevelRead, argument: true, scope: ofTable},
	"table_list":         {need: LevelRead, argument: true, scope: ofTable},
	"index_list":         {need: LevelRead, argument: true, scope: ofTable},
	"index_info":         {need: LevelRead, argument: true, scope: ofIndex},
	"index_xinfo":        {need: LevelRead, argument: true, scope: ofIndex},
	"foreign_key_list":   {need: LevelRead, argument: true, scope: ofTable},
	"foreign_key_check":  {need: LevelRead, argument: true, scope: ofAll, rows: true}, // it reads parents, too
	"integrity_check":    {need: LevelRead, argument: true, scope: ofTable, rows: true},
	"quick_check":        {need: LevelRead, argument: true, scope: ofTable, rows: true},
	"optimize":           {need: LevelWrite, argument: true, scope: ofAll},
	"user_version":       {need: LevelRead, argument: true, sets: LevelAdmin},
	"application_id":     {need: LevelRead, argument: true, sets: LevelAdmin},
	"defer_foreign_keys": {need: LevelWrite, argument: true},
	"data_version":       {need: LevelRead},
	"page_size":          {need: LevelRead},
	"page_count":         {need: LevelRead, rows: true},
	"freelist_count":     {need: LevelRead, rows: true},
	"encoding":           {need: LevelRead},
	"compile_options":    {need: LevelRead},
	"function_list":      {need: LevelRead},
	"collation_list":     {need: LevelRead},
	"pragma_list":        {need: LevelRead},
	"database_list":      {need: LevelRead},
}

func permitPragma(name, arg string) error {
	use, known := pragmas[sqlite.Fold(name)]
	if known && (use.argument || arg == "") || off("pragma") {
		return nil
	}
	r := &Refusal{Code: CodePragma, Message: fmt.Sprintf("PRAGMA %s is not allowed", sqlite.Fold(name))}
	if known {
		r.Message = fmt.Sprintf("PRAGMA %s can be read, not set", sqlite.Fold(name))
	}
	return r
}

// otherPragmas are the rest of SQLite's, as pragma_list names them. A pragma that has rows is a table-valued function
// too (pragma_journal_mode), which SQLite reports as the reading of a table of that name and nothing else.
var otherPragmas = set(` analysis_limit auto_vacuum automatic_index busy_timeout cache_size cache_spill case_sensitive_like
		cell_size_check checkpoint_fullfsync count_changes default_cache_size empty_result_callbacks foreign_keys full_column_names
		fullfsync hard_heap_limit ignore_check_constraints incremental_vacuum journal_mode journal_size_limit legacy_alter_table
		locking_mode max_page_count mmap_size module_list query_only read_uncommitted recursive_triggers reverse_unordered_selects
		schema_version secure_delete short_column_names shrink_memory soft_heap_limit synchronous temp_store temp_store_directory
		threads trusted_schema wal_autocheckpoint wal_checkpoint writable_schema stats lock_status `)

// permitPragmaTable decides on reading a table whose name begins with pragma_.
func permitPragmaTable(table string) error {
	name := sqlite.Fold(table[len("pragma_"):])
	if otherPragmas[name] || name == "optimize" || name == "defer_foreign_keys" {
		return permitPragma(name+"()", "")
	}
	return nil
}
