package schedule_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/schedule"
)

func at(t testing.TB, text string) time.Time {
	t.Helper()
	m, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCron(t *testing.T) {
	for _, c := range []struct{ cron, now, next string }{
		{"* * * * *", "2026-03-01 12:00:00", "2026-03-01 12:01:00"},
		{"* * * * *", "2026-03-01 12:00:59", "2026-03-01 12:01:00"},
		{"*/15 * * * *", "2026-03-01 12:44:59", "2026-03-01 12:45:00"},
		{"5-10/5 1,13 * * *", "2026-03-01 01:05:00", "2026-03-01 01:10:00"},
		{"5-10/5 1,13 * * *", "2026-03-01 01:10:00", "2026-03-01 13:05:00"},
		{"0 3 * * 1", "2026-03-02 03:00:00", "2026-03-09 03:00:00"},
		{"0 3 * * MON", "2026-03-01 00:00:00", "2026-03-02 03:00:00"},
		{"0 0 1 jan *", "2026-03-01 00:00:00", "2027-01-01 00:00:00"},
		{"0 0 29 2 *", "2026-03-01 00:00:00", "2028-02-29 00:00:00"},
		{"0 0 31 * *", "2026-03-31 00:00:00", "2026-05-31 00:00:00"},
		{"59 23 31 12 *", "2026-12-31 23:59:00", "2027-12-31 23:59:00"},
		// crontab(5): where both days are given, either counts.
		{"0 0 13 * 5", "2026-03-01 00:00:00", "2026-03-06 00:00:00"},
		{"0 0 13 * 5", "2026-03-06 00:00:00", "2026-03-13 00:00:00"},
		{"0 0 15 * 0", "2026-04-12 00:00:00", "2026-04-15 00:00:00"},
		{"0 0 * * 0", "2026-03-02 00:00:00", "2026-03-08 00:00:00"},
		{"0 0 * * 7", "2026-03-02 00:00:00", "2026-03-08 00:00:00"},
		// A range goes on behind its end: from Friday to Monday.
		{"0 0 * * FRI-MON", "2026-03-02 00:00:00", "2026-03-06 00:00:00"},
		{"0 0 * * FRI-MON", "2026-03-07 00:00:00", "2026-03-08 00:00:00"},
		{"58-1 * * * *", "2026-03-01 12:01:00", "2026-03-01 12:58:00"},
		{"58-1 * * * *", "2026-03-01 12:59:00", "2026-03-01 13:00:00"},
		{"@hourly", "2026-03-01 12:00:00", "2026-03-01 13:00:00"},
		{"@daily", "2026-03-01 12:00:00", "2026-03-02 00:00:00"},
		{"@midnight", "2026-03-01 12:00:00", "2026-03-02 00:00:00"},
		{"@weekly", "2026-03-02 12:00:00", "2026-03-08 00:00:00"},
		{"@monthly", "2026-03-01 12:00:00", "2026-04-01 00:00:00"},
		{"@yearly", "2026-03-01 12:00:00", "2027-01-01 00:00:00"},
		{"@annually", "2026-03-01 12:00:00", "2027-01-01 00:00:00"},
		// The hour that summer time leaves out elsewhere is there, in UTC.
		{"30 2 29 3 *", "2026-03-01 00:00:00", "2026-03-29 02:30:00"},
	} {
		timing := schedule.Timing{Cron: c.cron}
		if err := timing.Check(); err != nil {
			t.Errorf("%s: %v", c.cron, err)
			continue
		}
		now := at(t, c.now)
		if got := timing.First(now.In(time.FixedZone("elsewhere", 3*3600+1800))); !got.Equal(at(t, c.next)) {
			t.Errorf("%s after %s: %s, want %s", c.cron, c.now, got, c.next)
		}
		// However late it is, it goes on from now.
		if got := timing.After(now.AddDate(-1, 0, 0), now); !got.Equal(at(t, c.next)) {
			t.Errorf("%s, a year late at %s: %s, want %s", c.cron, c.now, got, c.next)
		}
	}
	for _, bad := range []string{"", " ", "* * * *", "* * * * * *", "0 0 * * * 2026", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 * ", "* * * * 8", "*/0 * * * *", "a * * * *",
		"@reboot", "@every 1s", " @every 1h", "@every 1h", "@", "CRON_TZ=Europe/Berlin 0 3 * * *", "TZ=UTC 0 3 * * *", "H * * * *", "0 0 L * *", "0 0 15W * *", "0 0 * * FRI#3",
		"0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * * * *\x00", "-1 * * * *", "1e1 * * * *", "99999999999999999999 * * * *", strings.Repeat("0,", 200) + "0 * * * *"} {
		var c *schedule.CronError
		if err := (schedule.Timing{Cron: bad}).Check(); bad == "" && !errors.Is(err, schedule.ErrTiming) || bad != "" && !errors.As(err, &c) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestInterval(t *testing.T) {
	for seconds, want := range map[int]error{0: schedule.ErrTiming, 1: schedule.ErrInterval, 59: schedule.ErrInterval, 60: nil, 604800: nil, 604801: schedule.ErrInterval, -60: schedule.ErrInterval} {
		if err := (schedule.Timing{Interval: time.Duration(seconds) * time.Second}).Check(); !errors.Is(err, want) {
			t.Errorf("%d s: %v, want %v", seconds, err, want)
		}
	}
	if err := (schedule.Timing{Interval: time.Minute, Cron: "@daily"}).Check(); !errors.Is(err, schedule.ErrTiming) {
		t.Errorf("both: %v", err)
	}
	if err := (schedule.Timing{Interval: time.Minute + time.Millisecond}).Check(); !errors.Is(err, schedule.ErrInterval) {
		t.Errorf("a fraction: %v", err)
	}
	minute := schedule.Timing{Interval: time.Minute}
	for _, c := range []struct{ due, now, next string }{
		{"2026-03-01 12:00:00", "2026-03-01 12:00:00", "2026-03-01 12:01:00"},
		{"2026-03-01 12:00:00", "2026-03-01 12:00:07", "2026-03-01 12:01:00"}, // begun late, it doesn't drift
		{"2026-03-01 12:00:00", "2026-03-01 12:01:00", "2026-03-01 12:02:00"}, // missed: from now on
		{"2026-03-01 12:00:00", "2026-03-05 08:00:30", "2026-03-05 08:01:30"},
	} {
		if got := minute.After(at(t, c.due), at(t, c.now)); !got.Equal(at(t, c.next)) {
			t.Errorf("due %s, begun %s: %s, want %s", c.due, c.now, got, c.next)
		}
	}
}

// FuzzCron holds what is accepted against a look at each minute: an oracle that knows the fields by their text alone where they are lists of numbers, and for the others that times rise, lie on whole minutes and
// are at least a minute apart.
func FuzzCron(f *testing.F) {
	for _, s := range []string{"* * * * *", "*/5 1-3 * 1,2 0", "0 0 13 * 5", "@hourly", "@every 1s", "TZ=x * * * * *", "? ? ? ? ?", "0 0 29 2 1", "1,2,3 4 5 6 *"} {
		f.Add(s, int64(1772366400))
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		timing := schedule.Timing{Cron: text}
		if unix < 0 || unix > 4e9 || timing.Check() != nil {
			return
		}
		now := time.Unix(unix, 0).UTC()
		next := timing.First(now)
		if next.IsZero() {
			t.Fatalf("%q after %s: never", text, now)
		}
		if !next.After(now) || next.Second() != 0 || next.Nanosecond() != 0 || next.Location() != time.UTC {
			t.Fatalf("%q after %s: %s", text, now, next)
		}
		if again := timing.First(next.Add(-time.Second)); !again.Equal(next) {
			t.Fatalf("%q after %s: %s, and a second before that %s", text, now, next, again)
		}
		if after := timing.First(next); after.Sub(next) < time.Minute {
			t.Fatalf("%q: %s, then %s", text, next, after)
		}
		if fields := strings.Fields(text); len(fields) == 5 && fields[2] == "*" && fields[3] == "*" && fields[4] == "*" && strings.Trim(fields[0]+fields[1], "0123456789,") == "" {
			in := func(list string, n int) bool {
				for _, one := range strings.Split(list, ",") {
					if atoi(one) == n {
						return true
					}
				}
				return false
			}
			for m := now.Truncate(time.Minute).Add(time.Minute); m.Before(next); m = m.Add(time.Minute) {
				if in(fields[0], m.Minute()) && in(fields[1], m.Hour()) {
					t.Fatalf("%q after %s: %s, and %s was left out", text, now, next, m)
				}
			}
			if !in(fields[0], next.Minute()) || !in(fields[1], next.Hour()) {
				t.Fatalf("%q after %s: %s", text, now, next)
			}
		}
	})
}

func atoi(s string) int {
	n := 0
	for _, c := range s {
		n = n*10 + int(c-'0')
	}
	return n
}
