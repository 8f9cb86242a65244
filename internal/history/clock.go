package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io/fs"
	"os"
	"sync"
)

// Clock remembers when transactions were committed until the history has them: one file for all databases, which a process that is killed leaves behind.
// It isn't synced: a power loss may take the last times, and then the commits have the last one that is known. A note has 32 bytes: a hash of the database's
// id (8), the position (8), Unix ms (8), zero (4) and CRC32C of those (4).
//
// When the file is full, it becomes the former one, and the one before that goes. By then its commits are in the history: a database that is not used for
// seconds hands its log over, and so does one whose log has a thousand pages.
type Clock struct {
	path string

	mu   sync.Mutex
	f    *os.File
	size int64
	left map[uint64][]note // of the process before
}

type note struct {
	position uint64
	ms       int64
}

const (
	noteSize  = 32
	clockSize = 8 << 20
	former    = ".former"
)

// OpenClock reads what the process before left, and goes on behind it.
func OpenClock(path string) (*Clock, error) {
	c := &Clock{path: path, left: map[uint64][]note{}}
	for _, p := range []string{path + former, path} {
		b, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read commit times: %w", err)
		}
		whole := 0
		for ; whole+noteSize <= len(b); whole += noteSize {
			n := b[whole : whole+noteSize]
			if crc32.Checksum(n[:noteSize-4], crcTable) != binary.LittleEndian.Uint32(n[noteSize-4:]) {
				break
			}
			id := binary.LittleEndian.Uint64(n)
			c.left[id] = append(c.left[id], note{binary.LittleEndian.Uint64(n[8:]), int64(binary.LittleEndian.Uint64(n[16:]))})
		}
		if p == path {
			c.size = int64(whole)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Truncate(c.size)
	}
	if err != nil {
		return nil, fmt.Errorf("open commit times: %w", err)
	}
	c.f = f
	return c, nil
}

// Note remembers a commit.
func (c *Clock) Note(id string, position uint64, ms int64) error {
	var b [noteSize]byte
	binary.LittleEndian.PutUint64(b[0:], hashOf(id))
	binary.LittleEndian.PutUint64(b[8:], position)
	binary.LittleEndian.PutUint64(b[16:], uint64(ms))
	binary.LittleEndian.PutUint32(b[noteSize-4:], crc32.Checksum(b[:noteSize-4], crcTable))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size >= clockSize {
		if err := c.turn(); err != nil {
			return err
		}
	}
	if _, err := c.f.WriteAt(b[:], c.size); err != nil {
		return fmt.Errorf("note commit time: %w", err)
	}
	c.size += noteSize
	return nil
}

// turn begins the file anew.
func (c *Clock) turn() error {
	if err := os.Rename(c.path, c.path+former); err != nil {
		return fmt.Errorf("turn commit times: %w", err)
	}
	f, err := os.OpenFile(c.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("turn commit times: %w", err)
	}
	c.f.Close()
	c.f, c.size = f, 0
	return nil
}

// Times are the times of a database's commits behind a position, in order and without a gap, that the process before noted. They are asked for once.
func (c *Clock) Times(id string, after uint64) []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	notes := c.left[hashOf(id)]
	delete(c.left, hashOf(id))
	at := map[uint64]int64{}
	for _, n := range notes {
		at[n.position] = n.ms // the last word counts: a commit that failed was noted by nobody
	}
	var times []int64
	for p := after + 1; ; p++ {
		ms, ok := at[p]
		if !ok {
			return times
		}
		times = append(times, ms)
	}
}

// Has tells whether the process before noted commits of a database that Times was not asked for yet.
func (c *Clock) Has(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.left[hashOf(id)]) > 0
}

// Close ends the clock. clean says that the history has all commits of this process: then there is nothing to remember, unless the one before
// left something that nobody asked for.
func (c *Clock) Close(clean bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.f.Close()
	if clean && len(c.left) == 0 {
		for _, p := range []string{c.path, c.path + former} {
			if rerr := os.Remove(p); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
				err = errors.Join(err, rerr)
			}
		}
	}
	return err
}

func hashOf(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return h.Sum64()
}
