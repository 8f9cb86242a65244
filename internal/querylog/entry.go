package querylog

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Lengths in bytes beyond which the parts of an entry are cut; the SQL's is [Options.MaxSQL].
const (
	maxError = 1024
	maxName  = 255 // status and token; an entry with a longer database name isn't kept
)

// Entry is one statement that ran. The log keeps nothing of the memory it points at.
type Entry struct {
	Database string // the id of the database; ids are never used again
	TS       int64  // when it began, in Unix milliseconds
	SQL      []byte // cut at MaxSQL bytes; not kept where Text is off

	RowsRead, RowsWritten int64
	Duration              time.Duration

	Status  string // "ok", or a word for how it failed; a few different ones
	Error   string // its message, cut at 1 KB; "" if none. It may quote from the statement, also where Text is off
	TokenID string // the id of the token that ran it; "" if none
}

// Row is an entry as it is read.
type Row struct {
	ID                    ID
	TS                    int64 // Unix milliseconds
	SQL                   string
	RowsRead, RowsWritten int64
	Duration              time.Duration
	Status                string
	Error                 string
	TokenID               string
}

// ID names an entry: unique in the server's life, growing, and 0 for none.
type ID int64

const idPrefix = "q_"

// String is the id on the wire: "q_" and its number in base 36.
func (id ID) String() string { return string(id.Append(nil)) }

// Append appends the id as String writes it.
func (id ID) Append(b []byte) []byte {
	return strconv.AppendInt(append(b, idPrefix...), int64(id), 36)
}

// ParseID reads what String wrote.
func ParseID(s string) (ID, bool) {
	digits, ok := strings.CutPrefix(s, idPrefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 36, 64)
	if err != nil || n <= 0 || ID(n).String() != s {
		return 0, false
	}
	return ID(n), true
}

// cut shortens s to at most limit bytes, and to fewer where that would split a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit
	for end > 0 && end > limit-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	if !utf8.RuneStart(s[end]) {
		end = limit // not UTF-8: no character to keep whole
	}
	return s[:end]
}
