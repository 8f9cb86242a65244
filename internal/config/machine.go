package config

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what some defaults depend on.
type Machine struct {
	Memory      int64 // bytes that this process may use: the machine's, or less where a cgroup limits it
	Descriptors int64 // files that this process may have open
}

// An open database has two descriptors (its file and its log). The rest is for connections, the catalog, the query log
// and files that are open for a moment.
const (
	descriptorsPerDatabase = 2
	maxOpenByDefault       = 100_000
)

// openDatabases leaves half of the descriptors to all else.
func (m Machine) openDatabases() int {
	return int(min(max(8, m.Descriptors/2/descriptorsPerDatabase), maxOpenByDefault))
}

// ThisMachine measures the machine and raises this process' limit of open files as far as it may go.
func ThisMachine() (Machine, error) {
	descriptors, err := raiseDescriptors()
	if err != nil {
		return Machine{}, fmt.Errorf("raise limit of open files: %w", err)
	}
	total, err := totalMemory()
	if err != nil {
		return Machine{}, fmt.Errorf("measure memory: %w", err)
	}
	memory := int64(min(total, math.MaxInt64))
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err == nil {
		memory = min(memory, CgroupMemory("/sys/fs/cgroup", string(groups)))
	}
	return Machine{Memory: memory, Descriptors: descriptors}, nil
}

func raiseDescriptors() (int64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	if limit.Cur < limit.Max {
		raised := unix.Rlimit{Cur: limit.Max, Max: limit.Max}
		// Refused where the hard limit is beyond what the kernel allows; the soft one still holds.
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err == nil {
			limit = raised
		}
	}
	return int64(min(limit.Cur, math.MaxInt64)), nil
}

// CgroupMemory is the least memory limit, in bytes, of the process' cgroup and those above it; math.MaxInt64 where there
// is none. root is where cgroups are mounted, groups the text of /proc/self/cgroup; both versions are understood.
func CgroupMemory(root, groups string) int64 {
	least := int64(math.MaxInt64)
	for line := range strings.Lines(groups) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		base, file := root, "memory.max"
		if controllers != "" {
			base, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
			if !hasWord(controllers, "memory") {
				continue
			}
		}
		// Inside a container the path may be the host's, while the container's own group is mounted at the root; hence
		// every folder on the way up is asked, and those that aren't there are passed over.
		for dir := filepath.Clean("/" + path); ; dir = filepath.Dir(dir) {
			if text, err := os.ReadFile(filepath.Join(base, dir, file)); err == nil {
				// "max" is no number, and no limit.
				if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && limit > 0 {
					least = min(least, limit)
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

func hasWord(list, word string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if part == word {
			return true
		}
	}
	return false
}
