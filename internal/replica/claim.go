package replica

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/persqld/persqld/internal/bucket"
)

// marker is the object that says whose a replica is.
type marker struct {
	Format int    `json:"format"`
	Server string `json:"server"`
}

const markerFormat = 1

// ErrForeign is returned for a replica that is another server's.
var ErrForeign = errors.New("the replica is another server's")

// Claim makes a replica a server's, or finds that it is already. fresh tells that it was nobody's, and so has nothing. It returns ErrForeign.
func Claim(ctx context.Context, b bucket.Bucket, server string) (fresh bool, err error) {
	r, err := b.Get(ctx, markerKey, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		body, err := json.Marshal(marker{markerFormat, server})
		if err != nil {
			return false, err
		}
		return true, b.Put(ctx, markerKey, bytes.NewReader(body), int64(len(body)), time.Now())
	}
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(io.LimitReader(r, 4096))
	if err = errors.Join(err, r.Close()); err != nil {
		return false, err
	}
	var m marker
	if err := json.Unmarshal(body, &m); err != nil {
		return false, fmt.Errorf("%s of the replica: %w", markerKey, err)
	}
	switch {
	case m.Format != markerFormat:
		return false, fmt.Errorf("%w: its format is %d, and this version knows %d", ErrForeign, m.Format, markerFormat)
	case m.Server != server:
		return false, fmt.Errorf("%w (%s): give each server a PERSQLD_REPLICA_URL of its own", ErrForeign, m.Server)
	}
	return false, nil
}

// claim makes sure that the replica is this server's, as soon as it can be reached. False means that ctx ended, or that it isn't.
func (s *Shipper) claim(ctx context.Context) bool {
	for tries := 1; ; tries++ {
		fresh, err := Claim(ctx, s.opt.Bucket, s.opt.Server)
		if err == nil {
			if !fresh { // else what was remembered is of another one
				s.loadState()
			}
			return true
		}
		if errors.Is(err, ErrForeign) {
			s.log.Error("nothing is replicated", "error", err)
			s.opt.Observer.ShipFailed()
			return false
		}
		if ctx.Err() == nil {
			s.opt.Observer.ShipFailed()
			s.log.Warn("reach the replica; it is tried again", "failures", tries, "error", err)
		}
		wait := time.NewTimer(backoff(tries, err))
		select {
		case <-ctx.Done():
			wait.Stop()
			return false
		case <-wait.C:
		}
	}
}
