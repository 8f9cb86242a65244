package gate

import (
	"fmt"
	"strings"

	"github.com/persqld/persqld/internal/sqlite"
)

// functions are those that a statement may call. None of them reads a file, loads code, writes to the server's log or shows what
// another caller did: changes(), total_changes() and last_insert_rowid() are reset before each request.
var functions = set(`-> ->> abs acos acosh asin asinh atan atan2 atanh avg ceil ceiling changes char coalesce concat concat_ws cos cosh count
	cume_dist current_date current_time current_timestamp date datetime degrees dense_rank exp first_value floor format glob group_concat
	hex if ifnull iif instr julianday lag last_insert_rowid last_value lead length like likelihood likely ln log log10 log2 lower ltrim
	match max min mod nth_value ntile nullif octet_length percent_rank pi pow power printf quote radians random randomblob rank replace
	round row_number rtrim sign sin sinh soundex sqlite_compileoption_get sqlite_compileoption_used sqlite_offset sqlite_source_id
	sqlite_version sqrt strftime string_agg substr substring subtype sum tan tanh time timediff total total_changes trim trunc typeof
	unhex unicode unistr unistr_quote unixepoch unlikely upper zeroblob

	json json_array json_array_insert json_array_length json_error_position json_extract json_group_array json_group_object json_insert
	json_object json_patch json_pretty json_quote json_remove json_replace json_set json_type json_valid jsonb jsonb_array
	jsonb_array_insert jsonb_extract jsonb_group_array jsonb_group_object jsonb_insert jsonb_object jsonb_patch jsonb_remove
	jsonb_replace jsonb_set

	bm25 highlight snippet fts5_get_locale fts5_insttoken fts5_locale fts5_source_id rtreedepth rtreenode
	geopoly_area geopoly_bbox geopoly_blob geopoly_ccw geopoly_contains_point geopoly_group_bbox geopoly_json geopoly_overlap
	geopoly_regular geopoly_svg geopoly_within geopoly_xform

	sqlite_add_constraint sqlite_drop_column sqlite_drop_constraint sqlite_fail sqlite_find_constraint sqlite_rename_column
	sqlite_rename_quotefix sqlite_rename_table sqlite_rename_test`) // the last two lines: ALTER TABLE's own, which SQLite lets nobody else call

// refusedFunctions are the rest of what SQLite has. They are named so that a test can tell a new function from a refused one.
var refusedFunctions = map[string]string{
	"load_extension": "loads code",
	"fts3_tokenizer": "a pointer into the engine",
	"fts5":           "a pointer into the engine",
	"geopoly_debug":  "switches the engine's own tracing",
	"rtreecheck":     "reads tables by names that only running tells",
	"sqlite_log":     "writes to the server's log",
}

// refusedModules are virtual tables that need no CREATE: whoever names one reads it.
var refusedModules = map[string]string{
	"dbstat":        "the names and sizes of the server's own tables",
	"sqlite_dbpage": "raw pages",
	"sqlite_dbptr":  "raw pages",
	"sqlite_stmt":   "statements of other callers",
	"bytecode":      "what others run",
	"tables_used":   "what others run",
}

func set(words string) map[string]bool {
	s := map[string]bool{}
	for _, w := range strings.Fields(words) {
		s[w] = true
	}
	return s
}

func permitFunction(name string) error {
	if functions[sqlite.Fold(name)] || off("function") {
		return nil
	}
	return &Refusal{Code: CodeFunction, Message: fmt.Sprintf("The function %s is not allowed", name)}
}
