package sqlite

// Kind is one of SQLite's five storage classes.
type Kind uint8

const (
	Null Kind = iota
	Integer
	Real
	Text
	Blob
)

// String returns the SQL name of the storage class, as typeof() writes it in upper case.
func (k Kind) String() string {
	return [...]string{"NULL", "INTEGER", "REAL", "TEXT", "BLOB"}[k]
}

// Value is one value of SQLite's, as it goes into a statement. Only the field of its Kind has a meaning;
// Bytes holds both TEXT (which need not be valid UTF-8) and BLOB.
type Value struct {
	Kind  Kind
	Int   int64
	Float float64
	Bytes []byte
}

// Param is a value for a parameter of a statement. An empty Name means the next position, counted from 1;
// otherwise Name is matched with or without its prefix (":", "@" or "$").
type Param struct {
	Name string
	Value
}
