package gate

import "fmt"

// Refusal is a statement that may not run.
type Refusal struct {
	Code    string // a stable word, such as "pragma_not_allowed"
	Message string
	Hint    string
	// Request says that the call was wrong, not the caller's rights: a transaction statement in a query.
	Request bool
}

func (r *Refusal) Error() string { return r.Message }

// The codes of a Refusal.
const (
	CodePragma      = "pragma_not_allowed"
	CodeSystem      = "system_object"
	CodeAttach      = "attach_not_allowed"
	CodeTemp        = "temp_not_allowed"
	CodeTransaction = "transaction_statement"
	CodeModule      = "module_not_allowed"
	CodeFunction    = "function_not_allowed"
	CodeNotAllowed  = "not_allowed"
	CodeRole        = "role_not_allowed"
	CodeScope       = "scope_not_allowed"
	CodePolicy      = "policy_not_allowed"
)

// RefuseTable is the refusal of a table that the caller's scope does not hold.
func RefuseTable(table string) *Refusal {
	table = table[:min(len(table), 255)] // the argument of a pragma may be of any length
	return &Refusal{Code: CodeScope, Message: fmt.Sprintf("Token scope does not include table %q", table),
		Hint: "use a token whose tableScope has the table, and all that a view, trigger or foreign key of it leads to"}
}

// RefuseRole is the refusal of what the role is too low for: verb is what it cannot run.
func RefuseRole(role, verb string, need Level) *Refusal {
	if LevelOf(role) == LevelNone {
		return &Refusal{Code: CodeRole, Message: fmt.Sprintf("Token role %q may run nothing", role)}
	}
	return &Refusal{Code: CodeRole, Message: fmt.Sprintf("Token role %q cannot run %s", role, verb),
		Hint: fmt.Sprintf("a token with the role %s can", need.role())}
}
