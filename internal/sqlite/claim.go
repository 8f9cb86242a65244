package sqlite

import (
	"runtime"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// ClaimFunction is the SQL function whose value is a claim of the caller, or NULL: _persql_claim('user').
const ClaimFunction = "_persql_claim"

// Claims are what is known of who runs a statement.
type Claims interface {
	// Claim is the value under a key; the zero Value, NULL, if there is none. It is valid until the statement is reset.
	Claim(key string) Value
}

// RegisterClaims makes ClaimFunction known to the connection. It can be called from statements alone, not from a schema, and gives
// the same value for a key as long as a statement runs, so that SQLite may look values up in an index by it.
func (c *Conn) RegisterClaims() error {
	if c.claiming {
		return nil
	}
	t := c.thread
	used, spilled := t.mark()
	defer t.rewind(used, spilled)
	name := t.place([]byte(ClaimFunction + "\x00"))
	if name == 0 {
		return noMemory()
	}
	const flags = sqlite3.SQLITE_UTF8 | sqlite3.SQLITE_DETERMINISTIC | sqlite3.SQLITE_DIRECTONLY
	if rc := sqlite3.Xsqlite3_create_function_v2(t.tls, c.db, name, 1, flags, c.handle, funcptr(onClaim), 0, 0, 0); rc != sqlite3.SQLITE_OK {
		return c.fail(rc)
	}
	c.claiming = true
	return nil
}

// SetClaims says who runs the statements from now on; nil is nobody, and all claims are NULL.
func (c *Conn) SetClaims(claims Claims) { c.claims = claims }

func onClaim(tls *libc.TLS, ctx uintptr, _ int32, argv uintptr) {
	c := lookup[*Conn](sqlite3.Xsqlite3_user_data(tls, ctx))
	if c == nil || c.claims == nil {
		sqlite3.Xsqlite3_result_null(tls, ctx)
		return
	}
	arg := *(*uintptr)(at(argv))
	key := cstr(sqlite3.Xsqlite3_value_text(tls, arg))
	giveResult(tls, ctx, c.claims.Claim(key))
}

// giveResult makes v the result of a function or the value of a column. SQLite copies it.
func giveResult(tls *libc.TLS, ctx uintptr, v Value) {
	switch v.Kind {
	case Null:
		sqlite3.Xsqlite3_result_null(tls, ctx)
	case Integer:
		sqlite3.Xsqlite3_result_int64(tls, ctx, v.Int)
	case Real:
		sqlite3.Xsqlite3_result_double(tls, ctx, v.Float)
	case Text, Blob:
		p := uintptr(unsafe.Pointer(&noBytes))
		if len(v.Bytes) > 0 {
			p = uintptr(unsafe.Pointer(&v.Bytes[0])) // SQLite copies before it returns
		}
		if v.Kind == Text {
			sqlite3.Xsqlite3_result_text(tls, ctx, p, int32(len(v.Bytes)), sqlite3.SQLITE_TRANSIENT)
		} else {
			sqlite3.Xsqlite3_result_blob(tls, ctx, p, int32(len(v.Bytes)), sqlite3.SQLITE_TRANSIENT)
		}
		runtime.KeepAlive(v.Bytes) // an address alone keeps nothing from the collector
	}
}

// noBytes is what an empty text points at: a nil pointer would make it NULL.
var noBytes [1]byte
