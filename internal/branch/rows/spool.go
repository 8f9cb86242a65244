package rows

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// memoryMax is how many bytes of a spool are held in memory; what comes behind them waits in a file.
const memoryMax = 4 << 20

// spool keeps frames in the order in which they came, as many as there are.
type spool struct {
	dir     string
	limit   int
	memory  []byte
	file    *os.File
	spilled int64
}

func newSpool(dir string) *spool { return &spool{dir: dir, limit: memoryMax} }

// add keeps a copy of a frame.
func (s *spool) add(frame []byte) (err error) {
	s.memory = binary.BigEndian.AppendUint32(s.memory, uint32(len(frame)))
	s.memory = append(s.memory, frame...)
	if len(s.memory) <= s.limit {
		return nil
	}
	if s.file == nil {
		if s.file, err = os.CreateTemp(s.dir, "merge-*"); err != nil {
			return fmt.Errorf("keep changes: %w", err)
		}
	}
	n, err := s.file.Write(s.memory)
	s.spilled += int64(n)
	s.memory = s.memory[:0]
	if err != nil {
		return fmt.Errorf("keep changes: %w", err)
	}
	return nil
}

// each gives the frames in order. f may add to other spools, not to this one.
func (s *spool) each(f func(frame []byte) error) error {
	if s.file != nil {
		from := bufio.NewReaderSize(io.NewSectionReader(s.file, 0, s.spilled), 256<<10)
		var size [4]byte
		var b []byte
		for read := int64(0); read < s.spilled; read += int64(len(b)) + 4 {
			if _, err := io.ReadFull(from, size[:]); err != nil {
				return fmt.Errorf("read changes: %w", err)
			}
			n := int(binary.BigEndian.Uint32(size[:]))
			if cap(b) < n {
				b = make([]byte, n)
			}
			b = b[:n]
			if _, err := io.ReadFull(from, b); err != nil {
				return fmt.Errorf("read changes: %w", err)
			}
			if err := f(b); err != nil {
				return err
			}
		}
	}
	for b := s.memory; len(b) > 0; {
		n := 4 + int(binary.BigEndian.Uint32(b))
		if err := f(b[4:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
		os.Remove(s.file.Name())
		s.file = nil
	}
	s.memory, s.spilled = nil, 0
}
