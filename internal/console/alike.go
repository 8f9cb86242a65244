package console

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Letters that pass for others. A word of more than one alphabet reads as another word than the one that the server takes it for (UTS #39, "restriction levels"): what isn't of
// the word's own alphabet is marked. Text that is all in another language is not. Where a name stands, more is marked: see strict.

// manner is how a text is looked at.
type manner uint8

const (
	prose  manner = iota // what people wrote, and values: any language, and signs of any kind
	strict               // a name: nothing of it is there for its looks
	code                 // SQL: names, with strings and comments in between, which are prose
)

// alphabet is a script of Unicode's.
type alphabet struct {
	name  string
	table *unicode.RangeTable
}

// The alphabets that words are told apart by. What is common to many is of none; those of Chinese, Japanese and Korean are written with Latin letters in one word.
var (
	latin     = &alphabet{"Latin", unicode.Latin}
	none      = []*unicode.RangeTable{unicode.Common, unicode.Inherited}
	beside    = []*unicode.RangeTable{unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Bopomofo}
	alphabets = func() []*alphabet {
		list := []*alphabet{{"Cyrillic", unicode.Cyrillic}, {"Greek", unicode.Greek}} // which are met most often
		for _, name := range slices.Sorted(maps.Keys(unicode.Scripts)) {
			list = append(list, &alphabet{strings.ReplaceAll(name, "_", " "), unicode.Scripts[name]})
		}
		return list
	}()
)

// alphabetOf is the alphabet of a letter; last is the one of the letter before it, which it mostly is. nil for a letter of none.
func alphabetOf(r rune, last *alphabet) *alphabet {
	if last != nil && unicode.Is(last.table, r) {
		return last
	}
	if unicode.Is(latin.table, r) {
		return latin
	}
	if unicode.In(r, none...) {
		return nil
	}
	for _, a := range alphabets {
		if unicode.Is(a.table, r) {
			return a
		}
	}
	return nil
}

// twins are letters of other alphabets that are drawn as Latin ones: a word of these alone reads as a Latin word.
var twins = func() map[rune]bool {
	set := map[rune]bool{}
	for _, r := range "асеорухіјѕԁһӏԛԝѵ" + "АВСЕНІЈКМОРЅТХУӀԚԜѴ" + "αονριυγκωχϲϳ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹͿ" + "օոսհցզԼՍՕՏ" + "ⲟⲣⲥⲭⲞⲢⲤⲬ" + "ᎪᏴᏟᎠᎬᏀᎻᎥᎫᏦᏞᎷᎡᏚᎢᏙᎳᏃ" {
		set[r] = true
	}
	return set
}()

// twin tells of one; Lisu is an alphabet that was made of Latin capitals.
func twin(r rune) bool { return twins[r] || r >= 0xa4d0 && r <= 0xa4f7 }

// form tells of letters and digits that are others in another form, such as 𝐚 and ａ, and names the form.
func form(r rune) string {
	switch {
	case r >= 0xff10 && r <= 0xff5a && (unicode.IsLetter(r) || unicode.IsDigit(r)):
		return "fullwidth"
	case r >= 0x1d400 && r <= 0x1d7ff:
		return "mathematical"
	}
	return ""
}

// odd tells of Latin letters that are others in another form, or drawn as others: nobody's language needs them in a name.
func odd(r rune) bool {
	switch {
	case r == 'ª', r == 'º', r == 'µ', r == 'ſ', r == 'ɑ', r == 'ɡ', r == 'ɩ', r == 'ɪ', r == 'ǀ', r == 'ⅼ':
		return true
	case r >= 0x1d00 && r <= 0x1d7f, r >= 0x2071 && r <= 0x209c, r >= 0x2100 && r <= 0x214f, r >= 0x2160 && r <= 0x2188, r >= 0xfb00 && r <= 0xfb06:
		return true
	}
	return false
}

// alike is a character that passes for another, and what it is.
type alike struct {
	at   int
	what string
}

// alikes are those of a text, in its order.
func alikes(s string, how manner) (list []alike) {
	if ascii(s) {
		return nil
	}
	if how != code {
		return zone(list, s, 0, how)
	}
	for begin := 0; begin < len(s); {
		n, how := token(s[begin:])
		list = zone(list, s[begin:begin+n], begin, how)
		begin += n
	}
	return list
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// token is the length of the string, the comment or the quoted name that SQL begins with, or of all that comes before the next one, and how it is to be looked at.
func token(sql string) (n int, how manner) {
	until := func(end string) int {
		begin := min(2, len(sql))
		if len(end) == 1 {
			begin = 1
		}
		if i := strings.Index(sql[begin:], end); i >= 0 {
			return begin + i + len(end)
		}
		return len(sql)
	}
	switch {
	case sql[0] == '\'': // a doubled quote ends one string and begins another, which is the same to us
		return until("'"), prose
	case strings.HasPrefix(sql, "--"):
		return until("\n"), prose
	case strings.HasPrefix(sql, "/*"):
		return until("*/"), prose
	case sql[0] == '"' || sql[0] == '`':
		return until(sql[:1]), strict
	case sql[0] == '[':
		return until("]"), strict
	}
	for n = 1; n < len(sql); n++ {
		if strings.IndexByte("'\"`[", sql[n]) >= 0 || strings.HasPrefix(sql[n:], "--") || strings.HasPrefix(sql[n:], "/*") {
			break
		}
	}
	return n, strict
}

// zone adds what is alike in a part of a text that begins at a byte of it.
func zone(list []alike, s string, at int, how manner) []alike {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if !ofWord(r) {
			if how == strict && r >= utf8.RuneSelf && r != utf8.RuneError && unicode.IsPrint(r) {
				list = append(list, alike{at + i, "a sign in a name"}) // such as ‘ and ；: SQLite takes them for letters
			}
			i += size
			continue
		}
		end := i
		for end < len(s) {
			r, size := utf8.DecodeRuneInString(s[end:])
			if !ofWord(r) {
				break
			}
			end += size
		}
		if word := s[i:end]; !ascii(word) {
			list = judge(list, word, at+i, how)
		}
		i = end
	}
	return list
}

// ofWord tells whether a character goes on with a word. What can't be seen does: it must not make one word two.
func ofWord(r rune) bool {
	return r == '_' || r == '$' || unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r) || unicode.Is(unicode.Cf, r) || blank(r)
}

// judge adds what of a word passes for something else.
func judge(list []alike, word string, at int, how manner) []alike {
	var first, last *alphabet // of the other alphabets
	hasLatin, hasASCII, hasBeside, mixed, onlyTwins := false, false, false, false, true
	for _, r := range word {
		if r < utf8.RuneSelf {
			if unicode.IsLetter(r) {
				hasLatin, hasASCII = true, true
			}
			continue
		}
		if !unicode.IsLetter(r) || blank(r) || form(r) != "" {
			continue
		}
		if unicode.In(r, beside...) {
			hasBeside = true
			continue
		}
		switch a := alphabetOf(r, last); {
		case a == nil:
		case a == latin:
			hasLatin = true
		default:
			if first == nil {
				first = a
			}
			mixed, last, onlyTwins = mixed || a != first, a, onlyTwins && twin(r)
		}
	}
	own := first // the word's own alphabet; nil for Latin, or one that goes with it
	if hasLatin || hasBeside {
		own = nil
	}
	reads := how == strict && own != nil && !mixed && onlyTwins
	last = nil
	for i, r := range word {
		if r < utf8.RuneSelf || blank(r) || !unicode.IsPrint(r) {
			continue
		}
		if f := form(r); f != "" {
			if how == strict || hasASCII {
				list = append(list, alike{at + i, f})
			}
			continue
		}
		if how == strict && (odd(r) || unicode.IsNumber(r)) {
			list = append(list, alike{at + i, "another form"})
			continue
		}
		if !unicode.IsLetter(r) || unicode.In(r, beside...) {
			continue
		}
		a := alphabetOf(r, last)
		if a == nil || a == latin {
			continue
		}
		last = a
		// Units and formulas are written so, and no Greek letter of theirs looks like a Latin one.
		unit := how == prose && a.table == unicode.Greek && hasLatin && !twin(r)
		if reads || a != own && !unit {
			list = append(list, alike{at + i, a.name})
		}
	}
	return list
}

// note is what stands beside a character that passes for another.
func (a alike) note(r rune) string { return fmt.Sprintf("U+%04X %s", r, a.what) }
