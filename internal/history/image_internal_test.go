package history

import (
	"bytes"
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

// Images are what stands where they are asked for, in whatever order, though neighbours are read together.
func TestImagesAreReadAhead(t *testing.T) {
	const frame = frameHeader + sqlite.PageSize
	const frames = 3*together + 5
	dir := t.TempDir()
	r := imageReader{}
	defer r.close()
	var images [2][][]byte
	for file := range images {
		var b []byte
		for i := range frames {
			image := bytes.Repeat([]byte{byte(file + 1), byte(i), byte(i >> 8), 0}, sqlite.PageSize/4)
			images[file] = append(images[file], image)
			b = append(append(b, make([]byte, frameHeader)...), image...)
		}
		path := filepath.Join(dir, nameOf(uint64(file+1), chapterSuffix))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r.files = append(r.files, volume{path: path, first: uint64(file + 1)})
	}
	read := func(file, i int) {
		t.Helper()
		want := images[file][i]
		got, err := r.read(source{file: int32(file), sum: crc32.Checksum(want, crcTable), offset: int64(i*frame + frameHeader)})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("image %d of file %d: %v", i, file, err)
		}
	}
	for i := range frames {
		read(0, i)
	}
	for i := range frames { // the same places in turn
		read(i%2, i)
	}
	for i := frames - 1; i >= 0; i-- {
		read(1, i)
	}
	for i := range 10 { // into what was read ahead, and back, and beyond
		for _, k := range []int{0, 1, 2, together / 2, 1, together, together + 1, together + 2, 2 * together, frames - 1} {
			read(i%2, k)
		}
	}
	if _, err := r.read(source{file: 1, offset: frames * frame}); !damaged(err) {
		t.Errorf("behind the end: %v", err)
	}
}
