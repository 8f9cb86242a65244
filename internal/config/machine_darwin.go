package config

import "golang.org/x/sys/unix"

// totalMemory is the machine's, in bytes.
func totalMemory() (uint64, error) { return unix.SysctlUint64("hw.memsize") }
