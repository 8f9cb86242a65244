package sqlite

import "sync"

// handles finds the connection of a callback. C code carries an integer for us, never a Go pointer, which it
// could outlive.
var handles = struct {
	sync.RWMutex
	m    map[uintptr]any
	next uintptr
}{m: map[uintptr]any{}}

func newHandle(v any) uintptr {
	handles.Lock()
	defer handles.Unlock()
	handles.next++
	handles.m[handles.next] = v
	return handles.next
}

func freeHandle(h uintptr) {
	handles.Lock()
	delete(handles.m, h)
	handles.Unlock()
}

func lookup[T any](h uintptr) T {
	handles.RLock()
	v, _ := handles.m[h].(T)
	handles.RUnlock()
	return v
}
