package history

import (
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/persqld/persqld/internal/sqlite"
)

// imageReader reads images of pages where a walker found them. It verifies them once more, so that the bytes that it gives out are those.
type imageReader struct {
	files []volume
	open  map[int32]*os.File

	// ahead is what was read of an unmerged file last, from aheadAt on: more than the image, where one came right behind another.
	ahead     []byte
	aheadFile int32
	aheadAt   int64
	next      int64 // where the image would begin that stands behind the last one

	zip    *zstd.Decoder
	block  block // of the last image from a merged file
	file   int32
	at     int64 // where that block is; 0 if there is none
	images []byte
}

// read returns an image, valid until the next call.
func (r *imageReader) read(from source) ([]byte, error) {
	v := r.files[from.file]
	f := r.open[from.file]
	if f == nil {
		var err error
		if f, err = os.Open(v.path); err != nil {
			return nil, &DamageError{v.path, err.Error()}
		}
		if r.open == nil {
			r.open = map[int32]*os.File{}
		}
		r.open[from.file] = f
	}
	if v.merged {
		return r.unpack(f, v.path, from)
	}
	page, err := r.pageAt(f, from)
	if err != nil {
		return nil, readError(v.path, err)
	}
	if crc32.Checksum(page, crcTable) != from.sum {
		return nil, &DamageError{v.path, fmt.Sprintf("changed at byte %d while it was read", from.offset)}
	}
	return page, nil
}

// together is how many pages are read, or written, at once where they are neighbours.
const together = 64

// pageAt is the bytes of an image in an unmerged file.
func (r *imageReader) pageAt(f *os.File, from source) ([]byte, error) {
	at := from.offset - r.aheadAt
	if from.file != r.aheadFile || at < 0 || at+sqlite.PageSize > int64(len(r.ahead)) {
		size := sqlite.PageSize
		if from.file == r.aheadFile && from.offset == r.next {
			size = together * (frameHeader + sqlite.PageSize)
		}
		r.ahead = slices.Grow(r.ahead[:0], size)[:size]
		n, err := f.ReadAt(r.ahead, from.offset)
		if err != nil && (err != io.EOF || n < sqlite.PageSize) {
			r.ahead = r.ahead[:0]
			return nil, err
		}
		r.ahead, r.aheadFile, r.aheadAt, at = r.ahead[:n], from.file, from.offset, 0
	}
	r.next = from.offset + sqlite.PageSize + frameHeader
	return r.ahead[at : at+sqlite.PageSize], nil
}

// unpack keeps the last block: images are asked for in the order in which they stand.
func (r *imageReader) unpack(f *os.File, path string, from source) ([]byte, error) {
	at, i := from.offset/blockPages, int(from.offset%blockPages)
	if at != r.at || from.file != r.file {
		r.at = 0
		fi, err := f.Stat()
		if err == nil && r.zip == nil {
			r.zip, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*blockPages*sqlite.PageSize))
		}
		if err != nil {
			return nil, err
		}
		if err := r.block.read(f, at, fi.Size()); err != nil {
			return nil, readError(path, err)
		}
		images, err := r.zip.DecodeAll(r.block.packed, r.images[:0])
		if err != nil {
			return nil, readError(path, err)
		}
		if len(images) != len(r.block.numbers)*sqlite.PageSize {
			return nil, &DamageError{path, fmt.Sprintf("has a block of %d pages with %d bytes at byte %d", len(r.block.numbers), len(images), at)}
		}
		r.images, r.file, r.at = images, from.file, at
	}
	if i >= len(r.block.numbers) {
		return nil, &DamageError{path, fmt.Sprintf("changed at byte %d while it was read", at)}
	}
	return r.images[i*sqlite.PageSize : (i+1)*sqlite.PageSize], nil
}

// done closes a file of which no more images will be asked for.
func (r *imageReader) done(file int32) {
	if f := r.open[file]; f != nil {
		f.Close()
		delete(r.open, file)
	}
}

func (r *imageReader) close() {
	for file := range r.open {
		r.done(file)
	}
	if r.zip != nil {
		r.zip.Close()
	}
}
