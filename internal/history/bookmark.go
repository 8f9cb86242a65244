package history

import (
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strconv"
)

// ErrBookmark is returned for a text that is no bookmark of the database.
var ErrBookmark = errors.New("not a bookmark of this database")

const bookmarkDigits = 16

// AppendBookmark writes the name of a position of a database. Bookmarks of one database compare as texts as their positions do.
func AppendBookmark(b []byte, id string, position uint64) []byte {
	var digits [bookmarkDigits]byte
	const hexDigits = "0123456789abcdef"
	for i := bookmarkDigits - 1; i >= 0; i-- {
		digits[i] = hexDigits[position&15]
		position >>= 4
	}
	b = append(b, digits[:]...)
	b = append(b, '-')
	// It tells a slip of the pen, or another database's bookmark, from one of ours. It is no secret.
	sum := crc32.Update(crc32.Update(0, crcTable, []byte(id)), crcTable, digits[:])
	return hex.AppendEncode(b, []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// Bookmark is AppendBookmark as a text.
func Bookmark(id string, position uint64) string { return string(AppendBookmark(nil, id, position)) }

// ParseBookmark is the position that a bookmark names. It returns ErrBookmark for a text that isn't one, or is another database's.
func ParseBookmark(id, bookmark string) (uint64, error) {
	if len(bookmark) < bookmarkDigits {
		return 0, ErrBookmark
	}
	position, err := strconv.ParseUint(bookmark[:bookmarkDigits], 16, 64)
	if err != nil || Bookmark(id, position) != bookmark {
		return 0, ErrBookmark
	}
	return position, nil
}
