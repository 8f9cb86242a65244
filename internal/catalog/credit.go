package catalog

// Credit is money that comes in.
type Credit struct {
	NamespaceID string
	Nanos       int64  // nano-dollars; negative takes back
	Kind        string // "credit" by hand, "checkout" or "welcome"
	Ref         string // what it is for, where that must count once; "" for anything
	Note        string
}
