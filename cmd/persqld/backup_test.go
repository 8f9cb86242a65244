package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/replica"
)

// Where nobody sits at a terminal progress is a line now and then, and no more.
func TestMeter(t *testing.T) {
	now := time.Unix(0, 0)
	var out bytes.Buffer
	m := &meter{out: &out, what: "restored", now: func() time.Time { return now }}
	for i := range 25 {
		m.tell(replica.Progress{Done: i, Databases: 100, Bytes: int64(i) * 4096})
		now = now.Add(time.Second)
	}
	m.end()
	if got, want := out.String(), "restored 10 of 100 databases, 40960 bytes\nrestored 20 of 100 databases, 81920 bytes\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestMomentOf(t *testing.T) {
	const id, bookmark = "db_a", "0000000000000005-d2ba1e12"
	for text, want := range map[string]replica.Target{
		"": {}, "0": replica.AtTime(0), "1767225600000": replica.AtTime(1767225600000), "2026-01-01T00:00:00Z": replica.AtTime(1767225600000),
		"2026-01-01T01:00:00.000+01:00": replica.AtTime(1767225600000), "2026-01-01": replica.AtTime(1767225600000),
	} {
		if got, err := momentOf(text, id); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"now", "-1", bookmark, "2026-13-01T00:00:00Z"} {
		if got, err := momentOf(text, id); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
