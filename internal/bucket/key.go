package bucket

import (
	"errors"
	"fmt"
	"strings"
)

const (
	maxKey    = 512 // bytes of a key
	maxPart   = 200 // bytes of a part of one: files have names of at most 255, and temporary files longer ones than their own
	maxPrefix = 400 // bytes of the prefix in an S3 URL, which with a key makes less than the 1024 that S3 allows
)

// checkKey refuses what isn't a key.
func checkKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("a key has 1 to %d bytes, not %d", maxKey, len(key))
	}
	for part := range strings.SplitSeq(key, "/") {
		if err := checkPart(part); err != nil {
			return err
		}
	}
	return nil
}

func checkPart(part string) error {
	switch {
	case part == "":
		return errors.New("a key has no empty part: no / at its ends, and no two in a row")
	case part == "." || part == "..":
		return fmt.Errorf("a part of a key isn't %s", part)
	case len(part) > maxPart:
		return fmt.Errorf("a part of a key has at most %d bytes, not %d", maxPart, len(part))
	}
	for _, c := range []byte(part) {
		if !keyByte(c) {
			return errors.New("a key is of letters, digits and ._- with / between its parts")
		}
	}
	return nil
}

func keyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}

// checkPrefix refuses what no key could begin with, and returns its whole parts, with their /, and what follows them.
func checkPrefix(prefix string) (dir, rest string, err error) {
	if len(prefix) > maxKey {
		return "", "", fmt.Errorf("a prefix has at most %d bytes, not %d", maxKey, len(prefix))
	}
	i := strings.LastIndexByte(prefix, '/') + 1
	dir, rest = prefix[:i], prefix[i:]
	if dir != "" {
		if err := checkKey(dir[:i-1]); err != nil {
			return "", "", err
		}
	}
	// A rest of . or .. is the beginning of a key like ..a, so only its bytes matter.
	for _, c := range []byte(rest) {
		if !keyByte(c) {
			return "", "", errors.New("a prefix is of letters, digits and ._- with / between its parts")
		}
	}
	return dir, rest, nil
}

// checkGroup refuses a prefix that Groups doesn't take.
func checkGroup(prefix string) error {
	if _, rest, err := checkPrefix(prefix); err != nil {
		return err
	} else if rest != "" {
		return errors.New("the prefix of groups is empty or ends in a /")
	}
	return nil
}
