package sqlite

import (
	"runtime/debug"
	"unsafe"

	"modernc.org/libc"
)

const (
	arenaMin = 4 << 10
	// arenaKeep bounds what an idle Thread holds on to after one big value came by.
	arenaKeep = 256 << 10
)

// Thread is what SQLite's code needs of an operating-system thread, and memory for bound values. Two
// goroutines must never use one at the same time.
type Thread struct {
	tls   *libc.TLS
	arena uintptr // C memory: bound values must not move while a statement runs
	size  int
	used  int
	spill []uintptr // blocks beside the arena, for values that did not fit
	users int       // statements in use, of any connection: what is placed stays until there are none
	out   uintptr   // four words for results that C hands back through pointers

	accesses []Access // for the next statement's collector; Go memory
}

// NewThread returns a Thread; Close gives its memory back. From then on a fault at any address in the transpiled code, or beside it, is a panic
// of the goroutine that made it, which is to be the one that uses it, and not the process's end.
func NewThread() *Thread {
	debug.SetPanicOnFault(true)
	t := &Thread{tls: libc.NewTLS()}
	t.out = libc.Xmalloc(t.tls, 64)
	t.arena = libc.Xmalloc(t.tls, arenaMin)
	if t.out == 0 || t.arena == 0 {
		panic("sqlite: no memory for a thread")
	}
	t.size = arenaMin
	return t
}

// Close frees the Thread's memory. No connection may be using it.
func (t *Thread) Close() {
	t.release()
	libc.Xfree(t.tls, t.arena)
	libc.Xfree(t.tls, t.out)
	t.tls.Close()
}

// hold keeps what is placed where it is until the drop that belongs to it.
func (t *Thread) hold() { t.users++ }

func (t *Thread) drop() {
	if t.users--; t.users == 0 {
		t.release()
	}
}

// mark and rewind take back what was placed between them: text that SQLite has copied by then.
func (t *Thread) mark() (used, spilled int) { return t.used, len(t.spill) }

func (t *Thread) rewind(used, spilled int) {
	for i, p := range t.spill[spilled:] {
		libc.Xfree(t.tls, p)
		t.spill[spilled+i] = 0
	}
	t.used, t.spill = used, t.spill[:spilled]
}

// place copies b, and a zero behind it, into memory that stays where it is until release or rewind. It returns 0 if
// there is no memory.
func (t *Thread) place(b []byte) uintptr {
	n := len(b)
	var p uintptr
	if t.used+n+1 <= t.size {
		p = t.arena + uintptr(t.used)
		t.used += n + 1
	} else {
		p = libc.Xmalloc(t.tls, libc.Tsize_t(n+1))
		if p == 0 {
			return 0
		}
		t.spill = append(t.spill, p)
	}
	copy(unsafe.Slice((*byte)(at(p)), n+1), b)
	*(*byte)(at(p + uintptr(n))) = 0
	return p
}

// release takes back everything placed. Statements that were bound to it must be cleared before.
func (t *Thread) release() {
	if len(t.spill) > 0 {
		grow := 0
		for i, p := range t.spill {
			grow += int(libc.Xmalloc_usable_size(t.tls, p))
			libc.Xfree(t.tls, p)
			t.spill[i] = 0
		}
		t.spill = t.spill[:0]
		// The next statement is probably as big: one block instead of many, up to the bound.
		if want := min(t.size+grow, arenaKeep); want > t.size {
			if p := libc.Xmalloc(t.tls, libc.Tsize_t(want)); p != 0 {
				libc.Xfree(t.tls, t.arena)
				t.arena, t.size = p, want
			}
		}
	}
	t.used = 0
}

// at is the memory of C's at p. The detour is for vet, which takes every other conversion for the address of a Go
// object that may have moved in the meantime; what C allocates never does.
func at(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// cstr is the C string at p, copied.
func cstr(p uintptr) string {
	if p == 0 {
		return ""
	}
	return string(view(p, strlen(p)))
}

func strlen(p uintptr) int {
	n := 0
	for *(*byte)(at(p + uintptr(n))) != 0 {
		n++
	}
	return n
}

// view is n bytes of C memory as a slice, without a copy. It is valid as long as that memory is.
func view(p uintptr, n int) []byte {
	if p == 0 || n <= 0 {
		return nil
	}
	return unsafe.Slice((*byte)(at(p)), n)
}

// funcptr is a top-level function as the C code's function pointer: the address of the function's closure word,
// which for a top-level function is in read-only data and never moves.
func funcptr[F any](f F) uintptr {
	return *(*uintptr)(unsafe.Pointer(&struct{ f F }{f}))
}
