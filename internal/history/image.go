package history

import (
	"fmt"
	"hash/crc32"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/persqld/persqld/internal/sqlite"
)

// imageReader reads images of pages where a walker found them. It verifies them once more, so that the bytes that it gives out are those.
type imageReader struct {
	files []volume
	open  map[int32]*os.File
	page  []byte

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
	if r.page == nil {
		r.page = make([]byte, sqlite.PageSize)
	}
	if _, err := f.ReadAt(r.page, from.offset); err != nil {
		return nil, readError(v.path, err)
	}
	if crc32.Checksum(r.page, crcTable) != from.sum {
		return nil, &DamageError{v.path, fmt.Sprintf("changed at byte %d while it was read", from.offset)}
	}
	return r.page, nil
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
