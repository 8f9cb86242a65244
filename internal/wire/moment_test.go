package wire_test

import (
	"testing"

	"github.com/persqld/persqld/internal/wire"
)

func TestParseMoment(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1767225600000": 1767225600000, "2026-01-01T00:00:00Z": 1767225600000, "2026-01-01T01:00:00.25+01:00": 1767225600250,
		"2026-01-01T00:00:01": 1767225601000, "2026-01-01T00:01": 1767225660000, "2026-01-01": 1767225600000,
	} {
		if ms, ok := wire.ParseMoment(text); !ok || ms != want {
			t.Errorf("%s: %d, %v, want %d", text, ms, ok, want)
		}
	}
	for _, text := range []string{"", "-1", "1e3", "yesterday", "2026-13-01", "2026-01-01 00:00:00", "99999999999999999999"} {
		if ms, ok := wire.ParseMoment(text); ok {
			t.Errorf("%q is %d", text, ms)
		}
	}
}
