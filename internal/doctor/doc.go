// Package doctor examines a data directory that no server holds: every file, the catalog, the history, and one against
// the other. It says what it finds and what to do, and changes nothing.
package doctor
