package upstream

import (
	"encoding/json"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPicture is the longest address of a picture, in bytes.
const maxPicture = 500

// picture is the address of somebody's picture, as a provider tells it. It is passed on to apps, whose pages may show it as they please, and never fetched
// here. What can't be one is none, of whatever type: nobody's sign-in fails for a picture.
type picture string

// UnmarshalJSON takes anything; what is no picture becomes "".
func (p *picture) UnmarshalJSON(b []byte) error {
	var text string
	*p = ""
	if json.Unmarshal(b, &text) == nil {
		*p = pictureOf(text)
	}
	return nil
}

// pictureOf is a text if it is an absolute https address with a host and no user, of at most maxPicture bytes and without unfit characters: apps may paste it into a
// page. Else it is "".
func pictureOf(text string) picture {
	if len(text) > maxPicture || strings.ContainsFunc(text, unfit) {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return ""
	}
	return picture(text)
}

// unfit tells of the characters that no picture's address has: those that can't be seen, what was no UTF-8, and what no URI has (RFC 3986).
func unfit(r rune) bool {
	return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == utf8.RuneError || strings.ContainsRune("\"<>\\^`{|}", r)
}
