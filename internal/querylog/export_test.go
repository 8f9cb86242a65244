package querylog

import (
	"encoding/binary"
	"hash/crc32"
)

// SegmentBytes is what a segment counts for in MaxBuffer.
const SegmentBytes = segmentBytes

// SegmentRecords is how many entries a segment holds at most.
const SegmentRecords = segmentRecords

// Query runs a query that gives one number on the file.
func (l *Log) Query(sql string, args ...any) (n int, err error) {
	<-l.file
	defer l.unlock()
	err = l.db.QueryRow(sql, args...).Scan(&n)
	return n, err
}

// Exec runs a statement on the file.
func (l *Log) Exec(sql string) error {
	<-l.file
	defer l.unlock()
	_, err := l.db.Exec(sql)
	return err
}

// ReadChunk reads a chunk's body to its end and counts its entries. The checksum is set right first.
func ReadChunk(body []byte) (entries int) {
	if len(body) >= 4 {
		end := len(body) - 4
		binary.LittleEndian.PutUint32(body[end:], crc32.Checksum(body[:end], castagnoli))
	}
	o, err := openChunk(body)
	if err != nil {
		return -1
	}
	var it item
	for o.next(&it) {
		entries++
	}
	return entries
}

// MakeChunk is the body of a chunk of n entries, the newest being n.
func MakeChunk(n int) []byte {
	var b builder
	for i := n; i > 0; i-- {
		b.add(&item{id: int64(i), ts: int64(i%7) - 3, rowsRead: int64(i), sql: []byte{'a' + byte(i%3)}, status: []byte("ok")})
	}
	return b.take()[0].body
}

// SameShard tells whether two databases share a part of the buffer.
func (l *Log) SameShard(a, b string) bool { return l.shard(a) == l.shard(b) }
