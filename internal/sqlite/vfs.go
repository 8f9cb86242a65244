package sqlite

import (
	"errors"
	"fmt"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// plainVFS is the system's VFS but for two things. It takes an absolute path as it stands: the system's own asks the
// kernel about every directory on the way, each time a file is opened (5 % of a cold open), to follow links that the
// kernel follows anyway. And on Linux a sync doesn't keep a processor that others need (sync_linux.go).
type plainVFS struct {
	name     uintptr // C string; 0 before Initialize
	fullPath func(*libc.TLS, uintptr, uintptr, int32, uintptr) int32
}

var plain plainVFS

func registerPlainVFS(tls *libc.TLS) error {
	system := sqlite3.Xsqlite3_vfs_find(tls, 0)
	if system == 0 {
		return errors.New("find the system's VFS: none is registered")
	}
	name, err := libc.CString("persqld")
	if err != nil {
		return errors.New("register VFS: out of memory")
	}
	p := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	if p == 0 {
		libc.Xfree(tls, name)
		return errors.New("register VFS: out of memory")
	}
	vfs := *(*sqlite3.Tsqlite3_vfs)(at(system))
	plain.fullPath = *(*func(*libc.TLS, uintptr, uintptr, int32, uintptr) int32)(unsafe.Pointer(&vfs.FxFullPathname))
	vfs.FpNext, vfs.FzName, vfs.FxFullPathname = 0, name, funcptr(fullPathname)
	replaceSync(&vfs)
	*(*sqlite3.Tsqlite3_vfs)(at(p)) = vfs
	if rc := sqlite3.Xsqlite3_vfs_register(tls, p, 0); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("register VFS: result %d", rc)
	}
	plain.name = name
	return nil
}

func fullPathname(tls *libc.TLS, vfs, path uintptr, size int32, out uintptr) int32 {
	n := int32(libc.Xstrlen(tls, path))
	if *(*byte)(at(path)) != '/' || n >= size {
		return plain.fullPath(tls, vfs, path, size, out)
	}
	copy(view(out, int(n)+1), view(path, int(n)+1))
	return sqlite3.SQLITE_OK
}
