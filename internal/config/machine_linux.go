package config

import "golang.org/x/sys/unix"

// totalMemory is the machine's, in bytes.
func totalMemory() (uint64, error) {
	var info unix.Sysinfo_t
	err := unix.Sysinfo(&info)
	return uint64(info.Totalram) * uint64(info.Unit), err
}
