package store

// Know makes the store that of a version with other system tables. It is called before the store is used.
func (s *Store) Know(kept, notes SystemTable) {
	s.system = systemSet{kept, notes, snapshotsTable, meterTable}
}

// Copier copies files by a clone of the test's.
var Copier = copier
