package store

import (
	"bytes"
	"errors"
	"time"

	"github.com/persqld/persqld/internal/sqlite"
)

// ErrKeyReused is returned for an idempotency key that came with another request before.
var ErrKeyReused = errors.New("the key was used for another request")

// Key names a request that must run once.
type Key struct {
	Scope [32]byte // a hash of who asks (the token) and the key
	Body  [32]byte // a hash of what is asked
}

// keptState is what the actor remembers of its kept answers.
type keptState struct {
	bytes int64 // what they take, if known
	known bool
	swept time.Time
}

// forget is called when a rollback may have taken answers away.
func (k *keptState) forget() { k.known = false }

// keptOverhead is what an answer takes beside its bytes: two hashes, a time and two indexes.
const keptOverhead = 200

// sweepEvery is how often a database that keeps answers looks for those that are over their time.
const sweepEvery = time.Minute

// fullEvery is how often it looks while they are too many: a sweep counts all of them.
const fullEvery = time.Second

// Kept is the answer that was kept for a key, or nil. ErrKeyReused if the key stands for another request.
func (tx *Tx) Kept(k Key) ([]byte, error) {
	have, err := tx.has(tx.w.store.system.kept)
	if err != nil || !have {
		return nil, err
	}
	oldest := tx.w.store.opt.Now().Add(-tx.w.store.opt.KeptFor).UnixMilli()
	var answer []byte
	reused := false
	err = tx.own("SELECT body, answer FROM "+tx.w.store.system.kept.Name+" WHERE scope=? AND kept_at>?", []sqlite.Param{blobParam(k.Scope[:]), intParam(oldest)}, func(s *sqlite.Stmt) error {
		reused = !bytes.Equal(s.Column(0).Bytes, k.Body[:])
		answer = append([]byte{}, s.Column(1).Bytes...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if reused {
		return nil, ErrKeyReused
	}
	return answer, nil
}

// Keep keeps the answer of a key with what the request wrote: both are committed, or neither.
func (tx *Tx) Keep(k Key, answer []byte) error {
	if err := tx.need(tx.w.store.system.kept); err != nil {
		return err
	}
	if err := tx.sweepKept(int64(len(answer))); err != nil {
		return err
	}
	now := tx.w.store.opt.Now().UnixMilli()
	// REPLACE: an answer that is over its time may still stand there.
	err := tx.own("INSERT OR REPLACE INTO "+tx.w.store.system.kept.Name+"(scope, body, answer, kept_at) VALUES(?,?,?,?)",
		[]sqlite.Param{blobParam(k.Scope[:]), blobParam(k.Body[:]), blobParam(answer), intParam(now)}, nil)
	if err == nil {
		tx.a.kept.bytes += int64(len(answer)) + keptOverhead
	}
	return err
}

// sweepKept deletes what is over its time, now and then and when there is no room for more bytes.
func (tx *Tx) sweepKept(more int64) error {
	k, opt := &tx.a.kept, &tx.w.store.opt
	now := opt.Now()
	if !k.known {
		if err := tx.measureKept(); err != nil {
			return err
		}
	}
	full := k.bytes+more+keptOverhead > opt.KeptBytes
	switch since := now.Sub(k.swept); {
	case full && since < fullEvery:
		return ErrKeptFull
	case !full && since < sweepEvery:
		return nil
	}
	k.swept = now
	err := tx.own("DELETE FROM "+tx.w.store.system.kept.Name+" WHERE rowid IN (SELECT rowid FROM "+tx.w.store.system.kept.Name+" WHERE kept_at<=? ORDER BY kept_at LIMIT 10000)",
		[]sqlite.Param{intParam(now.Add(-opt.KeptFor).UnixMilli())}, nil)
	if err != nil {
		return err
	}
	if err := tx.measureKept(); err != nil {
		return err
	}
	if k.bytes+more+keptOverhead > opt.KeptBytes {
		return ErrKeptFull
	}
	return nil
}

func (tx *Tx) measureKept() error {
	k := &tx.a.kept
	err := tx.own("SELECT count(*), coalesce(sum(length(answer)),0) FROM "+tx.w.store.system.kept.Name, nil, func(s *sqlite.Stmt) error {
		k.bytes = s.Column(1).Int + keptOverhead*s.Column(0).Int
		return nil
	})
	k.known = err == nil
	return err
}
