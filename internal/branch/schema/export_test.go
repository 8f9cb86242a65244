package schema

// Same is how definitions are compared.
func Same(a, b *Object) bool { return same(a, b) }

// Canon is the form in which they are.
func Canon(o *Object) string { return canon(o) }

// IsKeyword looks into the list of keywords.
func IsKeyword(s string) bool { return keywords[s] }

// Plain tells of a name that it needs no quotes.
func Plain(s string) bool { return plain(s) }

// MaxObjects is the greatest number of objects.
const MaxObjects = maxObjects
