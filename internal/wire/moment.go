package wire

import (
	"strconv"
	"time"
)

// ParseMoment reads what people write for a moment, as Unix milliseconds: those, from 0 on, or a time of ISO 8601 (RFC 3339, or UTC without a zone, seconds or a time of day).
func ParseMoment(text string) (ms int64, ok bool) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return ms, ms >= 0
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UnixMilli(), true
		}
	}
	return 0, false
}
