package transfer_test

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// Numbers of every size go out and come back to the same bits, in this engine and in the system's sqlite3, whose
// arithmetic is less exact: it misreads the shortest decimals of some of these.
func TestRealsAreExact(t *testing.T) {
	path := fresh(t)
	edit(t, path, "CREATE TABLE v(a)")
	err := with(path, func(c *sqlite.Conn) error {
		if err := c.Exec("BEGIN"); err != nil {
			return err
		}
		s, err := c.Own("INSERT INTO v VALUES(?1)")
		if err != nil {
			return err
		}
		r := rand.New(rand.NewPCG(7, 7))
		for i := range 40_000 {
			var f float64
			switch i % 6 {
			case 0:
				f = math.Float64frombits(r.Uint64())
			case 1:
				f = math.Round(r.Float64()*1e6) / 100
			case 2:
				f = r.NormFloat64()
			case 3:
				f = math.Float64frombits(r.Uint64()>>12 | uint64(1023-40+r.IntN(80))<<52)
			case 4: // the smallest, which have fewer bits
				f = math.Float64frombits(r.Uint64() >> (12 + r.IntN(52)))
			case 5:
				f = math.Pow10(r.IntN(617) - 308)
			}
			if math.IsNaN(f) {
				continue
			}
			if err := s.Bind([]sqlite.Param{{Value: sqlite.Value{Kind: sqlite.Real, Float: f}}}); err != nil {
				return err
			}
			if _, err := s.Step(); err != nil {
				return err
			}
			s.Reset()
		}
		s.Done()
		if err := c.Exec("COMMIT"); err != nil {
			return err
		}
		return c.Exec("PRAGMA journal_mode=WAL")
	})
	if err != nil {
		t.Fatal(err)
	}
	want := content(t, path)
	edit(t, path)
	text := dump(t, path)
	got := fresh(t)
	load(t, got, text)
	same(t, "read back", content(t, got), want)
	shells := filepath.Join(tempDir(t), "shell.db")
	shell(t, shells, text)
	same(t, "read by the shell", content(t, shells), want)
}
