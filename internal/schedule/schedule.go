package schedule

import "time"

// Status is how a run ended.
type Status string

// The ways in which a run ends.
const (
	OK          Status = "ok"
	Failed      Status = "failed"
	Held        Status = "held"        // an approval rule stopped it, and people have not decided
	Interrupted Status = "interrupted" // the server stopped before it knew the end
)

// Statuses are all of them.
func Statuses() []Status { return []Status{OK, Failed, Held, Interrupted} }

// Schedule is SQL that runs by time. It is not changed after it was handed out.
type Schedule struct {
	ID         string
	DatabaseID string
	Name       string
	SQL        string
	Timing     Timing
	Enabled    bool
	CreatedAt  time.Time
	CreatedBy  string // id of a token, or of a member as user:<id>
	RunsAs     string // the same: who gave it its SQL, and answers for it

	NextRunAt    time.Time // zero while it is paused
	RunningSince time.Time // zero if it doesn't run
	LastRunAt    time.Time // zero if it never ran
	Last         Result

	Due time.Time // of a run that began by time: when it was due
}

// Result is what became of a run.
type Result struct {
	Status      Status
	Error       string // "" if it went well
	Duration    time.Duration
	RowsRead    int64
	RowsWritten int64

	// Undone says of an interrupted run that it is known to have changed nothing: it is due once more.
	Undone bool
}

// Wait is a schedule that waits for its time.
type Wait struct {
	ID         string
	DatabaseID string
	At         time.Time
}
