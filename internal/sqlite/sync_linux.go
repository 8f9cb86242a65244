package sqlite

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// A thread of Go's that waits for the disk keeps its processor (one of GOMAXPROCS), until the runtime's monitor has
// met it in the same system call twice and takes the processor away. The monitor looks every 20 µs while it has
// something to take; after 50 looks in vain it looks ever less often, down to every 10 ms. It meets no sync of half a
// millisecond twice then, so that it stays with its 10 ms for as long as the load lasts: no more syncs are on their way
// than there are processors, and nothing runs meanwhile. Which of the two a process falls into is chance. On two
// processors that was a third of the rate in every third start, and 40 ms for the slowest of a hundred requests.
//
// So a sync gives its processor on by itself when half of them wait already. Below that it keeps it, as ever: a lone
// one would pay for the way back and gain nothing.
var syncs struct {
	waiting    atomic.Int32
	processors int32

	open func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32 // the system's

	mu      sync.Mutex
	methods map[uintptr]uintptr // ours by the system's, which has one set for database files and another for logs
	sync    func(*libc.TLS, uintptr, int32) int32
}

// replaceSync puts our own sync into the files of a copy of the system's VFS.
func replaceSync(vfs *sqlite3.Tsqlite3_vfs) {
	syncs.processors = int32(runtime.GOMAXPROCS(0))
	syncs.methods = map[uintptr]uintptr{}
	syncs.open = *(*func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32)(unsafe.Pointer(&vfs.FxOpen))
	vfs.FxOpen = funcptr(openFile)
}

func openFile(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32 {
	rc := syncs.open(tls, vfs, name, file, flags, out)
	if f := (*sqlite3.Tsqlite3_file)(at(file)); rc == sqlite3.SQLITE_OK && f.FpMethods != 0 {
		f.FpMethods = methodsLike(tls, f.FpMethods)
	}
	return rc
}

// methodsLike returns the system's methods with our sync; without memory for them, the system's.
func methodsLike(tls *libc.TLS, system uintptr) uintptr {
	syncs.mu.Lock()
	defer syncs.mu.Unlock()
	ours := syncs.methods[system]
	if ours == 0 {
		if ours = libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{}))); ours == 0 {
			return system
		}
		m := *(*sqlite3.Tsqlite3_io_methods)(at(system))
		if syncs.sync == nil { // one for all of the system's
			syncs.sync = *(*func(*libc.TLS, uintptr, int32) int32)(unsafe.Pointer(&m.FxSync))
		}
		m.FxSync = funcptr(syncFile)
		*(*sqlite3.Tsqlite3_io_methods)(at(ours)) = m
		syncs.methods[system] = ours
	}
	return ours
}

// syncFile does what the system's does.
func syncFile(tls *libc.TLS, file uintptr, flags int32) int32 {
	f := (*sqlite3.TunixFile)(at(file))
	if f.FctrlFlags&sqlite3.UNIXFILE_DIRSYNC != 0 { // the first sync of a file that was made, and of its name
		return syncs.sync(tls, file, flags)
	}
	var errno syscall.Errno
	if 2*syncs.waiting.Add(1) > syncs.processors {
		errno = fsyncApart(f.Fh)
	} else {
		_, _, errno = syscall.Syscall(syscall.SYS_FSYNC, uintptr(f.Fh), 0, 0)
	}
	syncs.waiting.Add(-1)
	if errno != 0 {
		f.FlastErrno = int32(errno)
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	return sqlite3.SQLITE_OK
}

// fsyncApart is fsync without a processor. Between the two calls of the runtime the stack can't grow, nor may anything
// else need a processor.
//
//go:nosplit
//go:norace
func fsyncApart(fd int32) syscall.Errno {
	entersyscallblock()
	_, _, errno := syscall.RawSyscall(syscall.SYS_FSYNC, uintptr(fd), 0, 0)
	exitsyscall()
	return errno
}

// The runtime's own way into a system call that blocks. The runtime promises not to change it (go.dev/issue/67401),
// since gVisor links to it too.

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()
