package querylog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A chunk is the body of one row of the file: entries of one database, newest first. All numbers are varints but the
// last:
//
//	format (1) · number of entries · number of texts · (length · bytes) a text
//	· (id · ts · rows read · rows written · nanoseconds · sql · status · error · token) an entry
//	· CRC-32C of all before it, 4 bytes, little endian
//
// An id is what is to be taken from the one before, a ts what is to be added (signed); the first entry's are counted
// from 0. Texts are numbered from 1 in the order of their first use; 0 is the empty one.
const (
	chunkFormat  = 1
	chunkEntries = 4096      // at most
	chunkBody    = 256 << 10 // bytes; the entry that reaches it is the last
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errChunk = errors.New("a chunk of the query log is damaged")
)

// chunk is a finished chunk and what the file's columns say of it.
type chunk struct {
	lastID, maxTS int64
	entries       int
	body          []byte
}

// builder makes chunks. The zero value is ready.
type builder struct {
	numbers  map[string]uint64
	texts    []byte
	entries  []byte
	n        int
	id, ts   int64 // of the entry before
	lastID   int64
	maxTS    int64
	finished []chunk
}

// add adds an entry older than all before it.
func (b *builder) add(it *item) {
	if b.n == 0 {
		b.lastID, b.maxTS = it.id, it.ts
		b.entries = binary.AppendUvarint(b.entries, uint64(it.id))
	} else {
		b.entries = binary.AppendUvarint(b.entries, uint64(b.id-it.id))
	}
	b.entries = binary.AppendVarint(b.entries, it.ts-b.ts)
	b.entries = binary.AppendUvarint(b.entries, uint64(it.rowsRead))
	b.entries = binary.AppendUvarint(b.entries, uint64(it.rowsWritten))
	b.entries = binary.AppendUvarint(b.entries, uint64(it.duration))
	for _, t := range [...][]byte{it.sql, it.status, it.err, it.token} {
		b.entries = binary.AppendUvarint(b.entries, b.number(t))
	}
	b.id, b.ts, b.maxTS = it.id, it.ts, max(b.maxTS, it.ts)
	b.n++
	if b.n == chunkEntries || len(b.texts)+len(b.entries) >= chunkBody {
		b.seal()
	}
}

func (b *builder) number(text []byte) uint64 {
	if len(text) == 0 {
		return 0
	}
	if n, ok := b.numbers[string(text)]; ok {
		return n
	}
	if b.numbers == nil {
		b.numbers = map[string]uint64{}
	}
	n := uint64(len(b.numbers)) + 1
	b.numbers[string(text)] = n
	b.texts = binary.AppendUvarint(b.texts, uint64(len(text)))
	b.texts = append(b.texts, text...)
	return n
}

// seal ends the chunk that is being made.
func (b *builder) seal() {
	if b.n == 0 {
		return
	}
	body := make([]byte, 0, 1+2*binary.MaxVarintLen64+len(b.texts)+len(b.entries)+4)
	body = append(body, chunkFormat)
	body = binary.AppendUvarint(body, uint64(b.n))
	body = binary.AppendUvarint(body, uint64(len(b.numbers)))
	body = append(body, b.texts...)
	body = append(body, b.entries...)
	body = binary.LittleEndian.AppendUint32(body, crc32.Checksum(body, castagnoli))
	b.finished = append(b.finished, chunk{b.lastID, b.maxTS, b.n, body})
	clear(b.numbers)
	b.texts, b.entries, b.n, b.id, b.ts = b.texts[:0], b.entries[:0], 0, 0, 0
}

// take seals and gives the chunks made since the last take, newest first.
func (b *builder) take() []chunk {
	b.seal()
	done := b.finished
	b.finished = nil
	return done
}

// opened is the source of a chunk's entries.
type opened struct {
	texts  [][]byte
	rest   []byte
	left   uint64
	id, ts int64
	first  bool
}

// openChunk checks a body and begins to read it. Its memory must stay as it is.
func openChunk(body []byte) (*opened, error) {
	if len(body) < 5 || body[0] != chunkFormat {
		return nil, errChunk
	}
	end := len(body) - 4
	if crc32.Checksum(body[:end], castagnoli) != binary.LittleEndian.Uint32(body[end:]) {
		return nil, errChunk
	}
	o := &opened{rest: body[1:end], first: true}
	left, texts := o.number(), o.number()
	if texts > uint64(end) {
		return nil, errChunk
	}
	o.texts = make([][]byte, 0, texts)
	for range texts {
		n := o.number()
		if n > uint64(len(o.rest)) {
			return nil, errChunk
		}
		o.texts, o.rest = append(o.texts, o.rest[:n:n]), o.rest[n:]
	}
	o.left = left
	return o, nil
}

// number reads a varint; nothing is left to read after a malformed one.
func (o *opened) number() uint64 {
	v, n := binary.Uvarint(o.rest)
	if n <= 0 {
		o.rest, o.left = nil, 0
		return 0
	}
	o.rest = o.rest[n:]
	return v
}

func (o *opened) text() []byte {
	n := o.number()
	if n == 0 || n > uint64(len(o.texts)) {
		return nil
	}
	return o.texts[n-1]
}

func (o *opened) next(it *item) bool {
	if o.left == 0 || len(o.rest) == 0 {
		return false
	}
	o.left--
	if id := int64(o.number()); o.first {
		o.id, o.first = id, false
	} else {
		o.id -= id
	}
	step := o.number() // signed ones are folded: 0, -1, 1, -2 …
	o.ts += int64(step>>1) ^ -int64(step&1)
	it.id, it.ts = o.id, o.ts
	it.rowsRead, it.rowsWritten, it.duration = int64(o.number()), int64(o.number()), int64(o.number())
	it.sql, it.status, it.err, it.token = o.text(), o.text(), o.text(), o.text()
	return true
}
