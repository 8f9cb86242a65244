package history

import (
	"fmt"
	"path/filepath"
)

// DamageError is a file of the history that isn't what it should be.
type DamageError struct {
	Path string
	What string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%s %s", filepath.Base(e.Path), e.What)
}

// GapError is a moment that can't be restored, with the nearest ones that can.
type GapError struct {
	At            uint64
	Before, After uint64 // positions; HasBefore and HasAfter tell whether there are any
	BeforeTime    int64  // of those, in Unix ms; 0 for the empty database
	AfterTime     int64
	HasBefore     bool
	HasAfter      bool
	Cause         error
}

func (e *GapError) Error() string {
	nearest := "no moment can be restored"
	switch {
	case e.HasBefore && e.HasAfter:
		nearest = fmt.Sprintf("the nearest moments are positions %x and %x", e.Before, e.After)
	case e.HasBefore:
		nearest = fmt.Sprintf("the nearest moment is position %x, before it", e.Before)
	case e.HasAfter:
		nearest = fmt.Sprintf("the nearest moment is position %x, after it", e.After)
	}
	if e.Cause != nil {
		return fmt.Sprintf("position %x: %v; %s", e.At, e.Cause, nearest)
	}
	return fmt.Sprintf("position %x; %s", e.At, nearest)
}

func (e *GapError) Unwrap() error { return e.Cause }

// before and after consider a moment that can be restored.
func (e *GapError) before(m moment) {
	if m.position <= e.At && (!e.HasBefore || m.position > e.Before) {
		e.Before, e.BeforeTime, e.HasBefore = m.position, m.time, true
	}
}

func (e *GapError) after(m moment) {
	if m.position >= e.At && (!e.HasAfter || m.position < e.After) {
		e.After, e.AfterTime, e.HasAfter = m.position, m.time, true
	}
}
