package gate

import (
	"fmt"
	"slices"
	"strings"
)

// pragmaUse says what may follow the name of a pragma.
type pragmaUse uint8

const (
	bare     pragmaUse = iota + 1 // nothing: with an argument it would change a setting
	argument                      // the name of a table or index, or a number
)

// pragmas is every pragma that may be used, as a statement or as a pragma_… function.
var pragmas = map[string]pragmaUse{
	"table_info":         argument,
	"table_xinfo":        argument,
	"table_list":         argument,
	"index_list":         argument,
	"index_info":         argument,
	"index_xinfo":        argument,
	"foreign_key_list":   argument,
	"foreign_key_check":  argument,
	"integrity_check":    argument,
	"quick_check":        argument,
	"optimize":           argument,
	"user_version":       argument,
	"application_id":     argument,
	"defer_foreign_keys": argument,
	"data_version":       bare,
	"page_size":          bare,
	"page_count":         bare,
	"freelist_count":     bare,
	"encoding":           bare,
	"compile_options":    bare,
	"function_list":      bare,
	"collation_list":     bare,
	"pragma_list":        bare,
	"database_list":      bare,
}

func permitPragma(name, arg string) error {
	use := pragmas[strings.ToLower(name)]
	if use == argument || use == bare && arg == "" {
		return nil
	}
	r := &Refusal{Code: CodePragma, Message: fmt.Sprintf("PRAGMA %s is not allowed", strings.ToLower(name))}
	if use == bare {
		r.Message = fmt.Sprintf("PRAGMA %s can be read, not set", strings.ToLower(name))
	}
	return r
}

// otherPragmas are the rest of SQLite's, as pragma_list names them. A pragma that has rows is a table-valued function
// too (pragma_journal_mode), which SQLite reports as the reading of a table of that name and nothing else.
const otherPragmas = ` analysis_limit auto_vacuum automatic_index busy_timeout cache_size cache_spill case_sensitive_like
		cell_size_check checkpoint_fullfsync count_changes default_cache_size empty_result_callbacks foreign_keys full_column_names
		fullfsync hard_heap_limit ignore_check_constraints incremental_vacuum journal_mode journal_size_limit legacy_alter_table
		locking_mode max_page_count mmap_size module_list query_only read_uncommitted recursive_triggers reverse_unordered_selects
		schema_version secure_delete short_column_names shrink_memory soft_heap_limit synchronous temp_store temp_store_directory
		threads trusted_schema wal_autocheckpoint wal_checkpoint writable_schema stats lock_status `

// permitPragmaTable decides on reading a table whose name begins with pragma_.
func permitPragmaTable(table string) error {
	name := strings.ToLower(table[len("pragma_"):])
	if slices.Contains(strings.Fields(otherPragmas), name) || name == "optimize" || name == "defer_foreign_keys" {
		return permitPragma(name+"()", "")
	}
	return nil
}
