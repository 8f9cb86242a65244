package gate

import (
	"fmt"
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
