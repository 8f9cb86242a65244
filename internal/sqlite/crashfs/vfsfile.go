package crashfs

import (
	"fmt"
	"path/filepath"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// vfsFile begins the memory that SQLite allocates for an open file; the unix
// VFS's own structure follows it.
type vfsFile struct {
	methods uintptr // sqlite3_io_methods*, 0 while not open
	handle  uintptr // of an *openFile
}

// openFile is the Go side of a file that SQLite has open.
type openFile struct {
	vfs *vfs
	// ino is the file itself, whatever becomes of its name; none when it isn't
	// recorded (temporary, or outside the root).
	ino int
	rel string
	dir int
	// dirSync: the next sync of this handle syncs the directory too. Guarded by
	// the recorder's lock.
	dirSync bool
}

func realFile(pFile uintptr) uintptr { return pFile + unsafe.Sizeof(vfsFile{}) }

func openOf(pFile uintptr) *openFile {
	return lookup[*openFile](&handles, at[vfsFile](pFile).handle)
}

// ioMethods is version 2: shared memory, but no xFetch, so that SQLite never
// reaches a file through mmap.
func ioMethods() sqlite3.Tsqlite3_io_methods {
	return sqlite3.Tsqlite3_io_methods{
		FiVersion:               2,
		FxClose:                 fn(fileClose),
		FxRead:                  fn(fileRead),
		FxWrite:                 fn(fileWrite),
		FxTruncate:              fn(fileTruncate),
		FxSync:                  fn(fileSync),
		FxFileSize:              fn(fileSize),
		FxLock:                  fn(fileLock),
		FxUnlock:                fn(fileUnlock),
		FxCheckReservedLock:     fn(fileCheckReservedLock),
		FxFileControl:           fn(fileControl),
		FxSectorSize:            fn(fileSectorSize),
		FxDeviceCharacteristics: fn(fileDeviceCharacteristics),
		FxShmMap:                fn(fileShmMap),
		FxShmLock:               fn(fileShmLock),
		FxShmBarrier:            fn(fileShmBarrier),
		FxShmUnmap:              fn(fileShmUnmap),
	}
}

// unixIO returns the unix VFS's file and its methods.
func unixIO(pFile uintptr) (real uintptr, io *sqlite3.Tsqlite3_io_methods) {
	real = realFile(pFile)
	return real, at[sqlite3.Tsqlite3_io_methods](at[sqlite3.Tsqlite3_file](real).FpMethods)
}

func fileClose(tls *libc.TLS, pFile uintptr) int32 {
	f := at[vfsFile](pFile)
	open := openOf(pFile)
	real, io := unixIO(pFile)
	rc := call[func(*libc.TLS, uintptr) int32](io.FxClose)(tls, real)
	handles.remove(f.handle)
	*f = vfsFile{}
	open.vfs.open.Add(-1)
	return rc
}

func fileWrite(tls *libc.TLS, pFile, buf uintptr, amount int32, off sqlite3.Tsqlite3_int64) int32 {
	open := openOf(pFile)
	real, io := unixIO(pFile)
	xWrite := call[func(*libc.TLS, uintptr, uintptr, int32, sqlite3.Tsqlite3_int64) int32](io.FxWrite)
	if open.ino == none {
		return xWrite(tls, real, buf, amount, off)
	}
	r := open.vfs.rec
	if rc := r.intercepted(OpWrite, open.rel); rc != sqlite3.SQLITE_OK {
		return rc
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rc := xWrite(tls, real, buf, amount, off)
	if rc == sqlite3.SQLITE_OK {
		r.write(open.ino, off, unsafe.Slice(at[byte](buf), amount))
	} else {
		r.fail(fmt.Errorf("write %s: result %d", open.rel, rc))
	}
	return rc
}

func fileTruncate(tls *libc.TLS, pFile uintptr, size sqlite3.Tsqlite3_int64) int32 {
	open := openOf(pFile)
	real, io := unixIO(pFile)
	xTruncate := call[func(*libc.TLS, uintptr, sqlite3.Tsqlite3_int64) int32](io.FxTruncate)
	if open.ino == none {
		return xTruncate(tls, real, size)
	}
	r := open.vfs.rec
	r.mu.Lock()
	defer r.mu.Unlock()
	rc := xTruncate(tls, real, size)
	if rc == sqlite3.SQLITE_OK {
		r.truncate(open.ino, size)
	} else {
		r.fail(fmt.Errorf("truncate %s: result %d", open.rel, rc))
	}
	return rc
}

func fileSync(tls *libc.TLS, pFile uintptr, flags int32) int32 {
	open := openOf(pFile)
	real, io := unixIO(pFile)
	xSync := call[func(*libc.TLS, uintptr, int32) int32](io.FxSync)
	if open.ino == none {
		return xSync(tls, real, flags)
	}
	r := open.vfs.rec
	if rc := r.intercepted(OpSync, open.rel); rc != sqlite3.SQLITE_OK {
		return rc
	}
	r.mu.Lock()
	upto := len(r.ops)
	r.mu.Unlock()
	// Not under the lock: other databases go on while this one waits.
	rc := xSync(tls, real, flags)
	if rc != sqlite3.SQLITE_OK {
		return rc
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// A dropped sync was never called: it leaves the directory sync to the next.
	if r.dropped(open.rel) {
		return rc
	}
	r.sync(opSync, open.ino, open.rel, upto)
	if open.dirSync {
		open.dirSync = false
		r.sync(opSyncDir, open.dir, filepath.Dir(open.rel), upto)
	}
	return rc
}

func fileControl(tls *libc.TLS, pFile uintptr, code int32, arg uintptr) int32 {
	switch code {
	case sqlite3.SQLITE_FCNTL_SIZE_HINT, sqlite3.SQLITE_FCNTL_CHUNK_SIZE, sqlite3.SQLITE_FCNTL_MMAP_SIZE:
		// These let the unix VFS change a file's size or content unseen.
		return sqlite3.SQLITE_NOTFOUND
	}
	real, io := unixIO(pFile)
	return call[func(*libc.TLS, uintptr, int32, uintptr) int32](io.FxFileControl)(tls, real, code, arg)
}

// The rest is passed on.

func fileRead(tls *libc.TLS, pFile, buf uintptr, amount int32, off sqlite3.Tsqlite3_int64) int32 {
	if open := openOf(pFile); open.ino != none {
		if rc := open.vfs.rec.intercepted(OpRead, open.rel); rc != sqlite3.SQLITE_OK {
			return rc
		}
	}
	real, io := unixIO(pFile)
	return call[func(*libc.TLS, uintptr, uintptr, int32, sqlite3.Tsqlite3_int64) int32](io.FxRead)(tls, real, buf, amount, off)
}

func fileSize(tls *libc.TLS, pFile, pSize uintptr) int32 {
	real, io := unixIO(pFile)
	return call[func(*libc.TLS, uintptr, uintptr) int32](io.FxFileSize)(tls, real, pSize)
}

func fileLock(tls *libc.TLS, pFile uintptr, lock int32) int32 {
	real, io := unixIO(pFile)
	return call[func(*libc.TLS, uintptr, int32) int32](io.FxLock)(tls, real, lock)
}

func fileUnlock(tls *libc.TLS, pFile uintptr, lock int32) int32 {
	real, io := unixIO(pFile)
	return call[func(*libc.TLS, uintptr, int32) int32](io.FxUnlock)(tls, real, lock)
}

func fileCheckReservedLock(tls *libc.TLS, pFile, pOut uintptr) int32 {
	real, io := unixIO(pFile)
	return call[func(*libc.TLS, uintptr, uintptr) int32](io.FxCheckReservedLock)(tls, real, pOut)
}

func fileSectorSize(tls *libc.TLS, pFile uintptr) int32 {
	real, io := unixIO(pFile)
	return call[func(*libc.TLS, uintptr) int32](io.FxSectorSize)(tls, real)
}

func fileDeviceCharacteristics(tls *libc.TLS, pFile uintptr) int32 {
	real, io := unixIO(pFile)
	return call[func(*libc.TLS, uintptr) int32](io.FxDeviceCharacteristics)(tls, real)
}

func fileShmMap(tls *libc.TLS, pFile uintptr, page, size, extend int32, pp uintptr) int32 {
	real, io := unixIO(pFile)
	return call[func(*libc.TLS, uintptr, int32, int32, int32, uintptr) int32](io.FxShmMap)(tls, real, page, size, extend, pp)
}

func fileShmLock(tls *libc.TLS, pFile uintptr, off, n, flags int32) int32 {
	real, io := unixIO(pFile)
	return call[func(*libc.TLS, uintptr, int32, int32, int32) int32](io.FxShmLock)(tls, real, off, n, flags)
}

func fileShmBarrier(tls *libc.TLS, pFile uintptr) {
	real, io := unixIO(pFile)
	call[func(*libc.TLS, uintptr)](io.FxShmBarrier)(tls, real)
}

func fileShmUnmap(tls *libc.TLS, pFile uintptr, remove int32) int32 {
	real, io := unixIO(pFile)
	return call[func(*libc.TLS, uintptr, int32) int32](io.FxShmUnmap)(tls, real, remove)
}
