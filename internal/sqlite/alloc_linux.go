package sqlite

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite's memory on Linux. The library's own allocator rounds every size up to a power of two: a cached page of
// 4,368 bytes takes 8 KiB, and an open database 40 KB more than it uses. This one has closer classes. It serves sizes
// up to slabMax from spans of 64 KiB, each of one class, and leaves greater ones to the library.

const (
	spanShift = 16
	spanSize  = 1 << spanShift
	slabMax   = 32 << 10 // also the size of a piece of the log's index, of which every open database has one
	// slabRegion is address space, not memory: what is not used costs nothing.
	slabRegion = 64 << 30
)

// slabClasses are the sizes of slots, in bytes, multiples of 16. 4,368 is a cached page with SQLite's header; two of
// 32,768 fill a span.
var slabClasses = [...]int{
	16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792,
	2048, 2560, 3072, 3584, 4368, 5120, 6144, 7168, 8176, 10240, 13104, 16384, 21840, slabMax,
}

// span is 64 KiB of one class.
type span struct {
	// free are the freed slots, the last first. They aren't linked through the slots themselves: who takes one that another processor freed
	// would wait for its memory to learn which is the next.
	free       []uint16
	prev, next int32 // in the list of its class's spans that have room; -1 is none
	class      uint8
	listed     bool
	used       uint16
	fresh      uint16 // slots from this one on were never used
}

// slabs is the allocator. The addresses that it gives out lie in one region, so that a pointer's span is a shift away.
type slabs struct {
	mu      sync.Mutex
	base    uintptr
	spans   []span // those that were ever used
	empty   []int32
	partial [len(slabClasses)]int32 // the first span with room, or -1
	classOf [slabMax/16 + 1]uint8   // by size in units of 16
	library sqlite3.Tsqlite3_mem_methods
}

// memory is the process's: SQLite has one allocator.
var memory slabs

// configureMemory gives SQLite the allocator, before it is initialized. Where there is no address space for it (a
// limit on virtual memory) the library's stays.
func configureMemory(tls *libc.TLS, va uintptr) error {
	region, err := unix.MmapPtr(-1, 0, nil, slabRegion, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	m := &memory
	m.base = uintptr(region)
	for i := range m.partial {
		m.partial[i] = -1
	}
	c := 0
	for i := range m.classOf {
		for slabClasses[c] < 16*i {
			c++
		}
		m.classOf[i] = uint8(c)
	}
	methods := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(m.library)))
	if methods == 0 {
		return fmt.Errorf("configure SQLite's memory: out of memory")
	}
	defer libc.Xfree(tls, methods) // SQLite copies it
	if rc := sqlite3.Xsqlite3_config(tls, sqlite3.SQLITE_CONFIG_GETMALLOC, libc.VaList(va, methods)); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("read SQLite's memory functions: result %d", rc)
	}
	own := (*sqlite3.Tsqlite3_mem_methods)(at(methods))
	m.library = *own
	own.FxMalloc, own.FxFree, own.FxRealloc = funcptr(slabMalloc), funcptr(slabFree), funcptr(slabRealloc)
	own.FxSize, own.FxRoundup = funcptr(slabSize), funcptr(slabRoundup)
	if rc := sqlite3.Xsqlite3_config(tls, sqlite3.SQLITE_CONFIG_MALLOC, libc.VaList(va, methods)); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("configure SQLite's memory: result %d", rc)
	}
	return nil
}

// has tells whether p is one of ours.
func (m *slabs) has(p uintptr) bool { return p-m.base < slabRegion }

func (m *slabs) list(i int32) {
	s := &m.spans[i]
	s.prev, s.next, s.listed = -1, m.partial[s.class], true
	if s.next >= 0 {
		m.spans[s.next].prev = i
	}
	m.partial[s.class] = i
}

func (m *slabs) unlist(i int32) {
	s := &m.spans[i]
	if s.prev >= 0 {
		m.spans[s.prev].next = s.next
	} else {
		m.partial[s.class] = s.next
	}
	if s.next >= 0 {
		m.spans[s.next].prev = s.prev
	}
	s.listed = false
}

func (m *slabs) alloc(n int, h *Heap) uintptr {
	class := m.classOf[(n+15)/16]
	size := slabClasses[class]
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.partial[class]
	if i < 0 {
		if k := len(m.empty); k > 0 {
			i = m.empty[k-1]
			m.empty = m.empty[:k-1]
		} else if len(m.spans) < slabRegion>>spanShift {
			m.spans = append(m.spans, span{})
			i = int32(len(m.spans) - 1)
		} else {
			return 0
		}
		m.spans[i] = span{class: class}
		m.list(i)
	}
	s := &m.spans[i]
	slot := int(s.fresh)
	if k := len(s.free); k > 0 {
		slot = int(s.free[k-1])
		s.free = s.free[:k-1]
	} else {
		s.fresh++
	}
	s.used++
	if int(s.used)*size > spanSize-size { // the last slot
		m.unlist(i)
	}
	h.add(int64(size))
	return m.base + uintptr(i)<<spanShift + uintptr(slot*size)
}

func (m *slabs) release(p uintptr, h *Heap) {
	i := int32((p - m.base) >> spanShift)
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.spans[i]
	size := slabClasses[s.class]
	h.add(-int64(size))
	s.free = append(s.free, uint16(int((p-m.base)&(spanSize-1))/size))
	s.used--
	if !s.listed {
		m.list(i)
	}
	if s.used == 0 && (s.prev >= 0 || s.next >= 0) { // not the class's only span with room
		m.unlist(i)
		m.empty = append(m.empty, i)
		s.free = nil
		// The kernel takes the pages; the addresses stay ours and read as zero.
		unix.Madvise(unsafe.Slice((*byte)(at(m.base+uintptr(i)<<spanShift)), spanSize), unix.MADV_DONTNEED)
	}
}

var zeroPage = make([]byte, os.Getpagesize())

// releaseZeros gives the kernel back those of its pages in the n bytes at p that hold zeros alone: they read as zeros ever after, and take
// memory again when they are written to. Nobody may write to them meanwhile.
func releaseZeros(p uintptr, n int) {
	if !memory.has(p) {
		return // the library's allocator gets its memory in ways of its own
	}
	size := uintptr(len(zeroPage))
	end := (p + uintptr(n)) &^ (size - 1)
	for at := (p + size - 1) &^ (size - 1); at < end; {
		from := at
		for at < end && bytes.Equal(view(at, int(size)), zeroPage) {
			at += size
		}
		if at > from {
			unix.Madvise(view(from, int(at-from)), unix.MADV_DONTNEED)
		}
		at += size
	}
}

func (m *slabs) sizeOf(p uintptr) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slabClasses[m.spans[(p-m.base)>>spanShift].class]
}

// call is a function pointer of the library's as a function.
func call[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&struct{ p uintptr }{p})) }

func slabMalloc(tls *libc.TLS, n int32) uintptr {
	if n <= slabMax {
		if p := memory.alloc(int(n), heapOf(tls)); p != 0 {
			return p
		}
	}
	p := call[func(*libc.TLS, int32) uintptr](memory.library.FxMalloc)(tls, n)
	if p != 0 {
		heapOf(tls).addLocked(int64(n))
	}
	return p
}

func slabFree(tls *libc.TLS, p uintptr) {
	if memory.has(p) {
		memory.release(p, heapOf(tls))
		return
	}
	heapOf(tls).addLocked(-int64(slabSize(tls, p)))
	call[func(*libc.TLS, uintptr)](memory.library.FxFree)(tls, p)
}

func slabRealloc(tls *libc.TLS, p uintptr, n int32) uintptr {
	if !memory.has(p) && n > slabMax {
		had := slabSize(tls, p)
		q := call[func(*libc.TLS, uintptr, int32) uintptr](memory.library.FxRealloc)(tls, p, n)
		if q != 0 {
			heapOf(tls).addLocked(int64(n - had))
		}
		return q
	}
	have := int(slabSize(tls, p))
	if memory.has(p) && n <= slabMax && slabClasses[memory.classOf[(n+15)/16]] == have {
		return p
	}
	q := slabMalloc(tls, n)
	if q == 0 {
		return 0
	}
	copy(view(q, int(n)), view(p, min(have, int(n))))
	slabFree(tls, p)
	return q
}

func slabSize(tls *libc.TLS, p uintptr) int32 {
	if memory.has(p) {
		return int32(memory.sizeOf(p))
	}
	return call[func(*libc.TLS, uintptr) int32](memory.library.FxSize)(tls, p)
}

func slabRoundup(tls *libc.TLS, n int32) int32 {
	if n <= slabMax {
		return int32(slabClasses[memory.classOf[(n+15)/16]])
	}
	return call[func(*libc.TLS, int32) int32](memory.library.FxRoundup)(tls, n)
}
