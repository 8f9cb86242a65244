// Package crashfs simulates power loss for tests. It is imported by tests only.
//
// A kill -9 leaves the page cache, so it cannot show a missing fsync. Here a
// [Recorder] watches everything that happens below one root directory: SQLite
// through a VFS shim over the "unix" VFS ([Recorder.VFS]), other code through
// functions shaped like the os package's ([Recorder.SyncFile],
// [Recorder.SyncDir], [Recorder.Rename] …). The run itself goes to real files at
// full speed; what is kept beside it is a log of writes, truncations, syncs and
// directory entries, with the test's own acknowledgements between them
// ([Recorder.Mark]).
//
// Afterwards [Replay] lays out a directory as it may look when the power failed
// at one position of that log: what a sync covered is there, everything else is
// kept, lost or torn as a seeded generator decides. [Log.Crashes] does that for
// many positions and hands each directory to a check, which opens it with the
// ordinary code and compares with the acknowledgements before that position.
//
//	rec, err := crashfs.New(dir)
//	name, err := rec.VFS()                    // open databases with it
//	…                                         // write, and after each answer:
//	rec.Mark(id)
//	err = rec.Verify()                        // nothing went past the recorder
//	err = rec.Log().Crashes(1000, seed, tmp, func(c crashfs.Crash) error { … })
//
// DESIGN.md says what the simulated disk promises and what it doesn't.
package crashfs
