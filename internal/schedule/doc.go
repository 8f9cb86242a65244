// Package schedule runs SQL by time: when a schedule is due, and a runner that has each run then, once. Where schedules are kept and what a run does it is told.
package schedule
