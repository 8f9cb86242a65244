// Package store owns the tenants' databases: each is a file with one actor, which alone reads and writes it.
//
// A caller gives the [Store] a [Request] for a database. The database's actor runs its requests one after another,
// takes those that wait together into one transaction with a savepoint each (group commit), and answers a write
// after the sync of its commit. DESIGN.md says what is promised and how; the files are named for their part in it:
// actor.go (queue and ownership), group.go (the transaction of a group), replay.go (what ends a whole group),
// tx.go (what a request sees), lifecycle.go (open, evict, close, delete), watchdog.go (what outstays its time),
// kept.go (idempotency), systable.go (the server's own tables in a tenant's file).
package store
