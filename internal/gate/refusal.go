package gate

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
)
