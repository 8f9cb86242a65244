package querylog_test

import (
	"testing"

	"github.com/persqld/persqld/internal/querylog"
)

// Whatever the file holds, reading it neither panics nor asks for memory beyond its size.
func FuzzChunk(f *testing.F) {
	whole := querylog.MakeChunk(50)
	if got := querylog.ReadChunk(whole); got != 50 {
		f.Fatalf("%d entries, want 50", got)
	}
	for n := range whole {
		f.Add(append([]byte{}, whole[:n]...))
	}
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		if got := querylog.ReadChunk(append([]byte{}, body...)); got > len(body) {
			t.Errorf("%d entries in %d bytes", got, len(body))
		}
	})
}
