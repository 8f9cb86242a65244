package crashfs

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrInUse is returned by [Recorder.Close] while a database opened through the
// recorder's VFS is still open.
var ErrInUse = errors.New("a database is still open")

// SQLite's callbacks are top-level functions; they find their Go values in this
// table by an integer, which C memory may hold.
var handles = handleTable{byID: map[uintptr]any{}}

type handleTable struct {
	mu   sync.RWMutex
	last uintptr
	byID map[uintptr]any
}

func (t *handleTable) put(v any) uintptr {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	t.byID[t.last] = v
	return t.last
}

func (t *handleTable) remove(id uintptr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, id)
}

func lookup[T any](t *handleTable, id uintptr) T {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[id].(T)
}

// vfs is a registered SQLite VFS that passes everything on to "unix".
type vfs struct {
	rec   *Recorder
	name  string
	real  uintptr // sqlite3_vfs* of "unix"
	ptr   uintptr // our sqlite3_vfs*
	cname uintptr
	io    uintptr // sqlite3_io_methods* of all its files
	id    uintptr // in handles
	open  atomic.Int32
}

// VFS registers the recorder's VFS with SQLite at the first call and returns
// its name, for sqlite3_open_v2 or the driver's "?vfs=". Databases outside the
// root may be opened with it too; they are not recorded.
func (r *Recorder) VFS() (name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.vfs == nil {
		if r.vfs, err = register(r); err != nil {
			return "", err
		}
	}
	return r.vfs.name, nil
}

func register(r *Recorder) (*vfs, error) {
	tls := libc.NewTLS()
	defer tls.Close()
	if rc := sqlite3.Xsqlite3_initialize(tls); rc != sqlite3.SQLITE_OK {
		return nil, fmt.Errorf("initialize sqlite: result %d", rc)
	}
	unix, err := libc.CString("unix")
	if err != nil {
		return nil, fmt.Errorf("allocate vfs name: %w", err)
	}
	defer libc.Xfree(tls, unix)
	v := &vfs{rec: r, real: sqlite3.Xsqlite3_vfs_find(tls, unix)}
	if v.real == 0 {
		return nil, errors.New("find vfs unix: not registered on this platform")
	}
	v.id = handles.put(v)
	v.name = fmt.Sprintf("crashfs-%d", v.id)
	if v.cname, err = libc.CString(v.name); err != nil {
		v.free(tls)
		return nil, fmt.Errorf("allocate vfs name: %w", err)
	}
	v.ptr = libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	v.io = libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	if v.ptr == 0 || v.io == 0 {
		v.free(tls)
		return nil, errors.New("allocate vfs: out of memory")
	}

	// What isn't about files below the root ignores its VFS argument in the unix
	// VFS (full path names, access, time, randomness): take it over as it is.
	unixVFS := at[sqlite3.Tsqlite3_vfs](v.real)
	ours := *unixVFS
	ours.FpNext, ours.FzName, ours.FpAppData = 0, v.cname, v.id
	ours.FszOsFile = int32(unsafe.Sizeof(vfsFile{})) + unixVFS.FszOsFile
	ours.FxOpen = fn(vfsOpen)
	ours.FxDelete = fn(vfsDelete)
	*at[sqlite3.Tsqlite3_vfs](v.ptr) = ours
	*at[sqlite3.Tsqlite3_io_methods](v.io) = ioMethods()

	if rc := sqlite3.Xsqlite3_vfs_register(tls, v.ptr, 0); rc != sqlite3.SQLITE_OK {
		v.free(tls)
		return nil, fmt.Errorf("register vfs: result %d", rc)
	}
	return v, nil
}

func (v *vfs) unregister() error {
	if n := v.open.Load(); n > 0 {
		return fmt.Errorf("unregister vfs: %w (%d files)", ErrInUse, n)
	}
	tls := libc.NewTLS()
	defer tls.Close()
	if rc := sqlite3.Xsqlite3_vfs_unregister(tls, v.ptr); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("unregister vfs: result %d", rc)
	}
	v.free(tls)
	return nil
}

func (v *vfs) free(tls *libc.TLS) {
	handles.remove(v.id)
	libc.Xfree(tls, v.ptr)
	libc.Xfree(tls, v.io)
	libc.Xfree(tls, v.cname)
}

// vfsOf finds the Go side of a sqlite3_vfs that SQLite passes to a callback.
func vfsOf(pVfs uintptr) *vfs {
	return lookup[*vfs](&handles, at[sqlite3.Tsqlite3_vfs](pVfs).FpAppData)
}

func vfsOpen(tls *libc.TLS, pVfs, zName, pFile uintptr, flags int32, pOutFlags uintptr) int32 {
	v := vfsOf(pVfs)
	r := v.rec
	f := at[vfsFile](pFile)
	*f = vfsFile{}

	r.mu.Lock()
	defer r.mu.Unlock()
	rel, tracked := "", false
	if zName != 0 && flags&sqlite3.SQLITE_OPEN_DELETEONCLOSE == 0 {
		rel, tracked = r.rel(libc.GoString(zName))
	}
	real := at[sqlite3.Tsqlite3_vfs](v.real)
	xOpen := call[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](real.FxOpen)
	rc := xOpen(tls, v.real, zName, realFile(pFile), flags, pOutFlags)
	if rc != sqlite3.SQLITE_OK {
		// The unix VFS leaves nothing to close after a failed open.
		return rc
	}
	open := &openFile{vfs: v}
	if tracked {
		// New, or made by somebody past the recorder. Known files aren't read:
		// closing another descriptor would drop SQLite's POSIX locks.
		if _, _, ino := r.walk(rel); ino == none {
			if err := r.capture(rel); err != nil {
				r.fail(err)
			}
		}
		open.rel = rel
		open.dir, _, open.ino = r.walk(rel)
		// os_unix.c syncs the directory inside the first xSync of a handle that
		// was opened like this (UNIXFILE_DIRSYNC), whether or not the file is new.
		kind := flags & (sqlite3.SQLITE_OPEN_MAIN_JOURNAL | sqlite3.SQLITE_OPEN_SUPER_JOURNAL | sqlite3.SQLITE_OPEN_WAL)
		open.dirSync = flags&sqlite3.SQLITE_OPEN_CREATE != 0 && kind != 0
	}
	v.open.Add(1)
	*f = vfsFile{methods: v.io, handle: handles.put(open)}
	return rc
}

func vfsDelete(tls *libc.TLS, pVfs, zPath uintptr, syncDir int32) int32 {
	v := vfsOf(pVfs)
	r := v.rec
	r.mu.Lock()
	defer r.mu.Unlock()
	xDelete := call[func(*libc.TLS, uintptr, uintptr, int32) int32](at[sqlite3.Tsqlite3_vfs](v.real).FxDelete)
	rc := xDelete(tls, v.real, zPath, syncDir)
	if rc != sqlite3.SQLITE_OK {
		return rc
	}
	rel, ok := r.rel(libc.GoString(zPath))
	if !ok {
		return rc
	}
	dir, _, ino := r.walk(rel)
	if ino != none {
		r.remove(rel)
	}
	if syncDir != 0 && dir != none && !r.dropped(rel) {
		r.sync(opSyncDir, dir, filepath.Dir(rel), len(r.ops))
	}
	return rc
}

// fn is the C function pointer of a top-level Go function.
func fn[F any](f F) uintptr {
	return *(*uintptr)(unsafe.Pointer(&struct{ f F }{f}))
}

// call is the Go function behind a C function pointer.
func call[F any](p uintptr) F {
	return *(*F)(unsafe.Pointer(&struct{ p uintptr }{p}))
}

// at views C memory as a T.
func at[T any](p uintptr) *T {
	return *(**T)(unsafe.Pointer(&p))
}
