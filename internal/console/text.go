package console

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// run is a part of a text: characters as they are, or a mark in the place of some that can't be seen, or one that passes for another, with a mark beside it.
type run struct {
	Text string
	Mark string
	Name string // of what is marked, if it is well known
}

// names are the characters with which texts are most often made to look like others.
var names = map[rune]string{
	0x00: "null", 0x08: "backspace", 0x1b: "escape", 0x7f: "delete", 0x0d: "carriage return", 0xa0: "no-break space", 0xad: "soft hyphen",
	0x200b: "zero width space", 0x200c: "zero width non-joiner", 0x200d: "zero width joiner", 0x200e: "left-to-right mark", 0x200f: "right-to-left mark",
	0x202a: "left-to-right embedding", 0x202b: "right-to-left embedding", 0x202c: "pop directional formatting", 0x202d: "left-to-right override",
	0x202e: "right-to-left override", 0x2028: "line separator", 0x2029: "paragraph separator", 0x2060: "word joiner",
	0x2066: "left-to-right isolate", 0x2067: "right-to-left isolate", 0x2068: "first strong isolate", 0x2069: "pop directional isolate", 0xfeff: "zero width no-break space",
}

// blank tells of characters that Unicode calls letters, marks or symbols and that show nothing.
func blank(r rune) bool {
	switch {
	case r == 0x034f, r == 0x115f, r == 0x1160, r == 0x17b4, r == 0x17b5, r == 0x2800, r == 0x3164, r == 0xffa0, r == 0x16fe4, r == 0x1d159:
		return true
	case r >= 0x180b && r <= 0x180f, r >= 0xfe00 && r <= 0xfe0f, r >= 0xe0100 && r <= 0xe01ef:
		return true
	}
	return false
}

// longSpace is how many spaces and line breaks in a row are still shown as such: more of them could push what follows out of sight.
const longSpace = 60

// stacked is how many combining marks a character may carry: more of them would be painted over other lines.
const stacked = 3

// textRuns are the runs of what somebody wrote for people: a line's end may be that of Windows.
func textRuns(s string) []run { return runs(s, true, prose) }

// nameRuns are those of a name: of a table, a column, a database, a person.
func nameRuns(s string) []run { return runs(s, true, strict) }

// sqlRuns are those of SQL.
func sqlRuns(s string) []run { return runs(s, true, code) }

// valueRuns are the runs of a value, in which nothing goes without saying.
func valueRuns(s string) []run { return runs(s, false, prose) }

// plain is a text for where there can be no elements: a title, an attribute.
func plain(s string) string {
	var b strings.Builder
	for _, r := range textRuns(s) {
		if b.WriteString(r.Text); r.Mark != "" {
			b.WriteString("[" + r.Mark + "]")
		}
	}
	return b.String()
}

func runs(s string, windows bool, how manner) (list []run) {
	begin, marks := 0, 0
	passing := alikes(s, how)
	flush := func(end int) {
		if end > begin {
			list = append(list, run{Text: s[begin:end]})
		}
	}
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if space(r) {
			marks = 0
			n, lines, end := 0, 0, i
			for end < len(s) && space(rune(s[end])) {
				if s[end] == '\n' {
					lines++
				}
				n++
				end++
			}
			if n > longSpace {
				flush(i)
				if lines == 0 {
					list = append(list, run{Mark: noun(int64(n), "space")})
				} else {
					// On a line of its own: what follows must not seem to be of the line before, which may be a comment.
					list = append(list, run{Text: "\n"}, run{Mark: noun(int64(lines), "line break")}, run{Text: "\n"})
				}
				begin = end
			}
			i = end
			continue
		}
		if windows && r == '\r' && strings.HasPrefix(s[i+1:], "\n") {
			flush(i)
			i++
			begin = i
			continue
		}
		if unicode.Is(unicode.M, r) {
			marks++
		} else {
			marks = 0
		}
		if len(passing) > 0 && passing[0].at == i {
			flush(i)
			list = append(list, run{Text: s[i : i+size], Mark: passing[0].note(r)})
			i += size
			begin, passing = i, passing[1:]
			continue
		}
		if !(r == utf8.RuneError && size == 1) && unicode.IsPrint(r) && !blank(r) && marks <= stacked {
			i += size
			continue
		}
		flush(i)
		m := run{Mark: fmt.Sprintf("U+%04X", r), Name: names[r]}
		if r == utf8.RuneError && size == 1 {
			m = run{Mark: fmt.Sprintf("byte %02X", s[i]), Name: "not UTF-8"}
		}
		list = append(list, m)
		i += size
		begin = i
	}
	flush(len(s))
	return list
}

func space(r rune) bool { return r == ' ' || r == '\n' || r == '\t' }

// cut is the beginning of a text, of at most n characters, and whether there is more.
func cut(s string, n int) (string, bool) {
	if len(s) <= n {
		return s, false
	}
	for i := range s {
		if n == 0 {
			return s[:i], true
		}
		n--
	}
	return s, false
}
