package history

import (
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// An image that changed between the walk and the writing isn't given out.
func TestImageThatChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0000000000000001.log")
	page := make([]byte, sqlite.PageSize)
	from := source{sum: crc32.Checksum(page, crcTable)}
	for _, changed := range []bool{false, true} {
		if changed {
			page[17] = 1
		}
		if err := os.WriteFile(path, page, 0o600); err != nil {
			t.Fatal(err)
		}
		r := imageReader{files: []volume{{path: path, first: 1}}}
		if _, err := r.read(from); damaged(err) != changed {
			t.Errorf("changed %v: %v", changed, err)
		}
		r.close()
	}
}
