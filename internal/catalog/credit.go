package catalog

// Credit is money that is put into a namespace's balance.
type Credit struct {
	NamespaceID string
	Nanos       int64  // nano-dollars
	Kind        string // where it comes from, for example "checkout"
	Ref         string // names it for good: a second credit of the same Ref adds nothing
	Note        string
}
