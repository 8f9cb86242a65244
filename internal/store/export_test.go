package store

import "github.com/persqld/persqld/internal/sqlite"

// Know makes the store that of a version with other system tables. It is called before the store is used.
func (s *Store) Know(kept, notes SystemTable) {
	s.system = systemSet{kept, notes, snapshotsTable, meterTable}
}

// Copier copies files by a clone of the test's.
var Copier = copier

// IsSlim tells whether the database is open and gave back what its log's index doesn't use.
func (s *Store) IsSlim(database string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.actors[database]
	return a != nil && a.slim && (a.busy || a.conn != nil) // of a busy one the connection is its worker's
}

// BeginRecording makes a database's file, which nobody has open and which has no log, record.
func BeginRecording(path string, f RecordingFacts) error {
	if err := withScratch(path, func(c *sqlite.Conn) error { return beginRecording(c, f) }); err != nil {
		return err
	}
	return sqlite.SetLogMode(path)
}
