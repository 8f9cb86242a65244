package schedule

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/netresearch/go-cron"
)

// The bounds of an interval.
const (
	MinInterval = time.Minute
	MaxInterval = 7 * 24 * time.Hour
)

// maxCron is the longest cron expression, in bytes.
const maxCron = 200

var (
	// ErrTiming is returned for a schedule with neither an interval nor a cron expression, or with both.
	ErrTiming = errors.New("a schedule has an interval or a cron expression, and not both")
	// ErrInterval is returned for an interval out of bounds.
	ErrInterval = errors.New("an interval is a whole number of seconds from 60 to 604800")
)

// CronError says why a text is no cron expression.
type CronError struct{ Why string }

func (e *CronError) Error() string { return "invalid cron expression: " + e.Why }

// Timing says when a schedule is due: every interval, or when a cron expression says so, in UTC.
type Timing struct {
	Interval time.Duration // 0 for none
	Cron     string        // "" for none
}

// fields are the five of crontab(5): where both days are given, either of them counts. Seconds, years and the parser's further syntax are left out, so that
// two times of an expression are a minute apart at the least.
var fields = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.DowOrDom)

// Check returns an error for a timing by which nothing could run: ErrTiming, ErrInterval or a *CronError.
func (t Timing) Check() error {
	if (t.Interval == 0) == (t.Cron == "") {
		return ErrTiming
	}
	if t.Cron == "" {
		if t.Interval < MinInterval || t.Interval > MaxInterval || t.Interval%time.Second != 0 {
			return ErrInterval
		}
		return nil
	}
	spec, err := parse(t.Cron)
	if err != nil {
		return err
	}
	if spec.Next(time.Unix(0, 0).UTC()).IsZero() {
		return &CronError{"it names no day that there is"}
	}
	return nil
}

func parse(text string) (cron.Schedule, error) {
	switch {
	case len(text) > maxCron:
		return nil, &CronError{fmt.Sprintf("it is longer than %d bytes", maxCron)}
	case strings.Contains(text, "TZ="):
		return nil, &CronError{"times are UTC, a time zone can't be given"}
	case strings.HasPrefix(strings.TrimSpace(text), "@every"):
		return nil, &CronError{"@every is none; give intervalSec in its place"}
	}
	spec, err := fields.Parse(text)
	if err != nil {
		return nil, &CronError{strings.ToValidUTF8(err.Error(), "�")}
	}
	return spec, nil
}

// First is when a schedule is due that begins now.
func (t Timing) First(now time.Time) time.Time { return t.After(now, now) }

// After is when a schedule is due next, of which the run that was due begins now. Runs that were missed meanwhile are that one: it goes on from now. An interval
// that was kept to the second isn't moved by the moments that each run begins late. It is the zero time where there is none.
func (t Timing) After(due, now time.Time) time.Time {
	if t.Cron == "" {
		if next := due.Add(t.Interval); next.After(now) {
			return next
		}
		return now.Add(t.Interval)
	}
	spec, err := parse(t.Cron)
	if err != nil {
		return time.Time{} // it was checked when it was made
	}
	return spec.Next(now.UTC())
}
