package api

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/persqld/persqld/internal/store"
)

// maxKey is the longest idempotency key, in characters, and maxKept the largest answer that is kept, in bytes.
const (
	maxKey  = 200
	maxKept = 1_000_000
)

var errAnswerTooLargeToKeep = errors.New("answer too large to keep")

// idempotency is what a request's Idempotency-Key, or Plan-Key and Plan-Step, ask for.
type idempotency struct {
	given    bool
	plan     bool
	key      store.Key
	replayed bool
	reused   bool          // the key stands for another request
	retry    time.Duration // of the answer, if it says when to try again
}

// readKey reads the headers. The key belongs to the token; the database is the file that it is kept in.
func (x *exchange) readKey(call string) error {
	h := x.r.Header
	idem, plan, step := h["Idempotency-Key"], h["Plan-Key"], h["Plan-Step"]
	if idem == nil && plan == nil && step == nil {
		return nil
	}
	one := func(name string, values []string) (string, error) {
		if len(values) != 1 || values[0] == "" || utf8.RuneCountInString(values[0]) > maxKey {
			return "", newFault(http.StatusBadRequest, "invalid_idempotency_key", fmt.Sprintf("%s must have 1 to %d characters, and be sent once", name, maxKey), "")
		}
		return values[0], nil
	}
	scope := sha256.New()
	part := func(s string) { // with its length, so that no two lists of parts look alike
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		scope.Write(n[:])
		scope.Write([]byte(s))
	}
	switch {
	case idem != nil && (plan != nil || step != nil):
		return newFault(http.StatusBadRequest, "invalid_idempotency_key", "Send Idempotency-Key, or Plan-Key with Plan-Step, not both", "")
	case idem != nil:
		key, err := one("Idempotency-Key", idem)
		if err != nil {
			return err
		}
		part("idempotency")
		part(x.token.ID)
		part(key)
	default:
		key, err := one("Plan-Key", plan)
		if err != nil {
			return err
		}
		st, err := one("Plan-Step", step)
		if err != nil {
			return err
		}
		part("plan")
		part(x.token.ID)
		part(key)
		part(st)
		x.key.plan = true
	}
	x.key.given = true
	scope.Sum(x.key.key.Scope[:0])
	body := sha256.New()
	body.Write([]byte(call))
	body.Write([]byte{0})
	body.Write(x.body)
	body.Sum(x.key.key.Body[:0])
	return nil
}

// replay makes the kept answer of the request's key the answer, if there is one. It is asked before the statement is
// compiled: what ran once (CREATE TABLE) may not compile again. A key that was used for another request is remembered
// and told when the statement turns out to write; what only reads ignores the key.
func (x *exchange) replay(tx *store.Tx) (bool, error) {
	if !x.key.given {
		return false, nil
	}
	kept, err := tx.Kept(x.key.key)
	x.key.reused = errors.Is(err, store.ErrKeyReused)
	if x.key.reused {
		return false, nil
	}
	if err != nil || kept == nil {
		return false, err
	}
	if len(kept) < 2 {
		return false, errors.New("kept answer is cut off")
	}
	x.status = int(binary.BigEndian.Uint16(kept))
	x.out = append(x.out[:0], kept[2:]...)
	x.key.replayed = true
	if x.status != http.StatusOK { // a batch's partial failure: it may say when to try again
		var failure struct {
			RetryAfterSeconds int `json:"retryAfterSeconds"`
		}
		if err := json.Unmarshal(x.out, &failure); err == nil {
			x.key.retry = time.Duration(failure.RetryAfterSeconds) * time.Second
		}
	}
	return true, nil
}

// keep keeps the answer with what the request wrote.
func (x *exchange) keep(tx *store.Tx) error {
	if len(x.out) > maxKept {
		return errAnswerTooLargeToKeep
	}
	kept := make([]byte, 2, 2+len(x.out))
	binary.BigEndian.PutUint16(kept, uint16(x.status))
	return tx.Keep(x.key.key, append(kept, x.out...))
}

// replayHeader says that the answer is that of an earlier call, and when to try again if it is a failure that passes.
func (x *exchange) replayHeader() {
	if x.key.retry > 0 {
		x.w.Header()["Retry-After"] = []string{fmt.Sprint(retrySeconds(x.key.retry))}
	}
	if !x.key.replayed {
		return
	}
	if x.key.plan {
		x.w.Header().Set("Plan-Replayed", "true")
	} else {
		x.w.Header().Set("Idempotency-Replayed", "true")
	}
}
