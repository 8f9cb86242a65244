package querylog

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

const (
	segmentRecords = 512
	segmentArena   = 96 << 10
	segmentBytes   = 128 << 10 // what a segment counts for in Options.MaxBuffer
	segmentSlots   = 256

	// idleSegments is how many empty segments are kept for the next second: 2 MB.
	idleSegments = 16
)

// record is an entry in a segment. Its texts are offsets into the arena, 0 for an empty one. It holds no pointer, so
// that the garbage collector doesn't look into the buffer.
type record struct {
	id, ts, rowsRead, rowsWritten, duration int64
	database, sql, status, err, token       uint32
}

// segment is a piece of the buffer: records in the order of their ids and the texts they point at. What has been
// written stays as it is until reset, so a reader who knows n may read without a lock beside the one who appends.
type segment struct {
	n    int
	used int // bytes of the arena; the first one is never used, offset 0 is the empty text
	// shared says that a reader may hold the segment: it is left to the garbage collector instead of being used again.
	shared  bool
	slots   [segmentSlots]uint32 // by hash: where the arena has a text
	records [segmentRecords]record
	arena   [segmentArena]byte
}

func newSegment() *segment { return &segment{used: 1} }

func (s *segment) reset() {
	s.n, s.used = 0, 1
	clear(s.slots[:])
}

// room tells whether an entry of so many bytes of text fits, none of them being there already.
func (s *segment) room(bytes int) bool {
	const lengths = 2 * 5
	return s.n < segmentRecords && s.used+bytes+lengths <= segmentArena
}

// intern is the offset of a text of at most 65,535 bytes. A text that is there already is found by its hash unless
// another one took its slot since: the same few statements and tokens cost their bytes once. It is looked for at guess
// first.
func (s *segment) intern(seed maphash.Seed, text string, guess uint32) uint32 {
	if text == "" {
		return 0
	}
	if guess != 0 && string(s.text(guess)) == text {
		return guess
	}
	slot := &s.slots[maphash.String(seed, text)%segmentSlots]
	if at := *slot; at != 0 && string(s.text(at)) == text {
		return at
	}
	at := uint32(s.used)
	binary.LittleEndian.PutUint16(s.arena[s.used:], uint16(len(text)))
	s.used += 2 + copy(s.arena[s.used+2:], text)
	*slot = at
	return at
}

// text is the text at an offset; it must not be written to.
func (s *segment) text(at uint32) []byte {
	if at == 0 {
		return nil
	}
	n := uint32(binary.LittleEndian.Uint16(s.arena[at:]))
	return s.arena[at+2 : at+2+n : at+2+n]
}

// item reads record i.
func (s *segment) item(i int, it *item) {
	r := &s.records[i]
	it.id, it.ts, it.rowsRead, it.rowsWritten, it.duration = r.id, r.ts, r.rowsRead, r.rowsWritten, r.duration
	it.sql, it.status, it.err, it.token = s.text(r.sql), s.text(r.status), s.text(r.err), s.text(r.token)
}

// shard is the part of the buffer where the entries of some databases go. A database has one shard, so its entries are
// in the order of their ids.
type shard struct {
	mu   sync.Mutex
	segs []*segment // oldest first; the last one is being filled
	_    [64]byte   // a cache line between the locks of two shards
}

// pool hands out segments within the bound of the whole buffer.
type pool struct {
	mu    sync.Mutex
	free  []*segment
	used  int
	limit int

	dropped atomic.Uint64 // entries
}

// next gives a shard, which is locked, an empty segment to fill. At the bound the shard's own oldest one goes: who
// floods the log loses his own entries first. A shard without any gets one in any case.
func (p *pool) next(sh *shard) (seg *segment, half bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used >= p.limit && len(sh.segs) > 0 {
		oldest := sh.segs[0]
		sh.segs = sh.segs[:copy(sh.segs, sh.segs[1:])]
		p.dropped.Add(uint64(oldest.n))
		p.give(oldest)
	}
	p.used++
	if last := len(p.free) - 1; last >= 0 {
		seg, p.free = p.free[last], p.free[:last]
	} else {
		seg = newSegment()
	}
	sh.segs = append(sh.segs, seg)
	return seg, p.used*2 > p.limit
}

// release takes back segments that nobody appends to.
func (p *pool) release(segs []*segment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range segs {
		p.give(s)
	}
}

func (p *pool) give(s *segment) {
	p.used--
	if !s.shared && len(p.free) < idleSegments {
		s.reset()
		p.free = append(p.free, s)
	}
}

// item is an entry on its way out of a segment or a chunk, whose memory its texts point into.
type item struct {
	id, ts, rowsRead, rowsWritten, duration int64
	sql, status, err, token                 []byte
}

// source gives the entries of one database, newest first.
type source interface {
	// next reads the next entry; false is the end.
	next(*item) bool
}

// view is what a reader sees of a segment.
type view struct {
	seg *segment
	n   int
}

// buffered is the source of the entries of a database that wait in memory.
type buffered struct {
	database string
	views    []view // oldest first
	known    uint32 // offset in the last view that was found to be the database's name
}

func (b *buffered) next(it *item) bool {
	for len(b.views) > 0 {
		v := &b.views[len(b.views)-1]
		for v.n > 0 {
			v.n--
			at := v.seg.records[v.n].database
			if at != b.known {
				if string(v.seg.text(at)) != b.database {
					continue
				}
				b.known = at
			}
			v.seg.item(v.n, it)
			return true
		}
		b.views, b.known = b.views[:len(b.views)-1], 0
	}
	return false
}

// buffered looks at what waits in memory of a database. Entries that come later are not in it.
func (l *Log) buffered(database string) *buffered {
	sh := l.shard(database)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	b := &buffered{database: database, views: make([]view, 0, len(sh.segs))}
	for _, s := range sh.segs {
		s.shared = true
		b.views = append(b.views, view{s, s.n})
	}
	return b
}
