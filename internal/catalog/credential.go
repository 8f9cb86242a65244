package catalog

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"strings"
	"unsafe"
)

// A token of ours is
//
//	psql_live_p1_<32 letters and digits><6 letters and digits>
//
// (psql_test_p1_… for a test token): 190 random bits, and a checksum that lets a mistyped token be refused without a
// look-up and a secret scanner recognise a real one. The checksum is the CRC-32 (IEEE) of everything before it, in
// base 62, most significant digit first. Tokens without the marker p1_ are an operator's own.
const (
	prefixLive = "psql_live_"
	prefixTest = "psql_test_"
	marker     = "p1_"

	randomDigits   = 32
	checksumDigits = 6

	// minSecret and maxSecret bound what follows the prefix, in bytes.
	minSecret = 32
	maxSecret = 245

	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// Hash is the SHA-256 of a token, the only form in which a token is kept.
type Hash [sha256.Size]byte

// hashToken doesn't let the conversion to bytes copy the token to the heap: this runs with every request.
func hashToken(token string) Hash {
	return sha256.Sum256(unsafe.Slice(unsafe.StringData(token), len(token)))
}

// CheckToken tells whether a token could be one, without a look-up. It returns ErrTokenFormat if its prefix, its
// characters or its length (32 to 245 after the prefix) are wrong, and ErrTokenUnknown if its checksum is.
func CheckToken(token string) error {
	secret, ok := strings.CutPrefix(token, prefixLive)
	if !ok {
		secret, ok = strings.CutPrefix(token, prefixTest)
	}
	if !ok || len(secret) < minSecret || len(secret) > maxSecret {
		return ErrTokenFormat
	}
	for i := range len(secret) {
		c := secret[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return ErrTokenFormat
		}
	}
	if !strings.HasPrefix(secret, marker) {
		return nil
	}
	if len(secret) != len(marker)+randomDigits+checksumDigits {
		return ErrTokenUnknown
	}
	body := token[:len(token)-checksumDigits]
	sum := checksum(body)
	if token[len(body):] != string(sum[:]) {
		return ErrTokenUnknown
	}
	return nil
}

// newToken is a token that nobody has.
func newToken(test bool) string {
	var b strings.Builder
	if test {
		b.WriteString(prefixTest)
	} else {
		b.WriteString(prefixLive)
	}
	b.WriteString(marker)
	b.WriteString(randomText(randomDigits))
	sum := checksum(b.String())
	b.Write(sum[:])
	return b.String()
}

// randomText is n random letters and digits.
func randomText(n int) string {
	text := make([]byte, 0, n)
	for len(text) < n {
		var random [randomDigits]byte
		rand.Read(random[:]) // never fails: crypto/rand ends the process first
		for _, r := range random {
			// 248 is the greatest multiple of 62 in a byte: beyond it the first digits would come more often.
			if r < 248 && len(text) < n {
				text = append(text, base62[r%62])
			}
		}
	}
	return string(text)
}

func checksum(body string) [checksumDigits]byte {
	sum := crc32.ChecksumIEEE(unsafe.Slice(unsafe.StringData(body), len(body)))
	var digits [checksumDigits]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = base62[sum%62]
		sum /= 62
	}
	return digits
}

// hintOf is what a list shows of a token: psql_live_xxxx…yyyy, 4 characters of the secret's beginning (after the
// marker, which says nothing) and 4 of its end.
func hintOf(token string) string {
	prefix := token[:len(prefixLive)]
	secret := token[len(prefixLive):]
	first := strings.TrimPrefix(secret, marker)[:4]
	return fmt.Sprintf("%s%s…%s", prefix, first, secret[len(secret)-4:])
}
