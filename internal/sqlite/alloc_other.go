//go:build !linux

package sqlite

import "modernc.org/libc"

// configureMemory leaves SQLite the library's allocator.
func configureMemory(*libc.TLS, uintptr) error { return nil }

func releaseZeros(uintptr, int) {}
