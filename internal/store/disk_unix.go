package store

import (
	"errors"

	"golang.org/x/sys/unix"
)

// freeBytes is the room on the file system of dir that this process may use.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// DiskFull makes err ErrDiskFull too where the system says so.
func DiskFull(err error) error { return diskFull(err) }

// diskFull makes err ErrDiskFull too where it says so.
func diskFull(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &wrapped{ErrDiskFull, err}
	}
	return err
}
