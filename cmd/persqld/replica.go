package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/config"
	"github.com/persqld/persqld/internal/datadir"
	"github.com/persqld/persqld/internal/replica"
)

const (
	// claimTime is how long a start waits for the replica to say whose it is. One that can't be reached is no reason not to serve.
	claimTime = 5 * time.Second
	// flushTime is how long a stop ships what is left, at most; stopTime bounds it too.
	flushTime = 5 * time.Second
)

// serverID names the server to its replica, also when it was restored from there.
func serverID(ctx context.Context, cat *catalog.Catalog) (string, error) {
	const key = "server-id"
	if id, ok := cat.Setting(key); ok {
		return id, nil
	}
	id := catalog.NewID("srv")
	return id, cat.SetSetting(ctx, key, id)
}

// openReplica makes the shipper of PERSQLD_REPLICA_URL, which keep lets look into the databases; nil without one. A replica of another server is refused.
func openReplica(ctx context.Context, set *config.Settings, p *past, cat *catalog.Catalog, dir *datadir.Dir, keep, base func(context.Context, string) error, metrics *api.Metrics, logger *slog.Logger) (*replica.Shipper, error) {
	if set.ReplicaURL == "" {
		return nil, nil
	}
	b, err := bucket.Open(set.ReplicaURL, bucket.Options{Observer: asked{metrics}, Limits: bucket.Limits{RequestsPerSecond: float64(set.ReplicaRequests)}})
	if err != nil {
		return nil, fmt.Errorf("PERSQLD_REPLICA_URL: %w", err)
	}
	id, err := serverID(ctx, cat)
	if err != nil {
		return nil, err
	}
	claim, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	fresh, err := replica.Claim(claim, b, id)
	if errors.Is(err, replica.ErrForeign) {
		return nil, fmt.Errorf("PERSQLD_REPLICA_URL: %w", err)
	}
	if fresh { // what is remembered was shipped to another one
		if err := os.Remove(dir.ReplicaState()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	ship := replica.New(replica.Options{
		Bucket: b, Past: p.history, Keep: keep, Base: base, Size: sizeOf(dir), Databases: cat.DatabaseIDs,
		CopyCatalog: cat.Copy, CatalogVersion: cat.Version, CatalogFiles: []string{dir.Catalog(), dir.Catalog() + "-wal"},
		Server: id, Temp: dir.Temp(), State: dir.ReplicaState(),
		Interval: set.ReplicaInterval.Duration, KeepFor: set.History.Duration, Logger: logger, Observer: metrics,
	})
	metrics.Register("persqld_replica_behind_databases", "Databases with transactions that the replica does not have yet.", func() float64 {
		n, _ := ship.Behind()
		return float64(n)
	})
	metrics.Register("persqld_replica_behind_seconds", "Age of the oldest transaction that the replica does not have yet.", func() float64 {
		_, d := ship.Behind()
		return d.Seconds()
	})
	return ship, nil
}

// asked tells the metrics of requests to the bucket.
type asked struct{ metrics *api.Metrics }

func (a asked) Tried(op bucket.Op, outcome bucket.Outcome, seconds float64, _ int64) {
	a.metrics.Asked(string(op), string(outcome), seconds)
}

// replicate ships until stop is called and closed is, and then for a while what is left. done is closed in the end.
func replicate(ship *replica.Shipper, closed <-chan struct{}) (stop func(), done <-chan struct{}) {
	ended := make(chan struct{})
	if ship == nil {
		close(ended)
		return func() {}, ended
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(ended)
		ship.Run(ctx, func() (context.Context, context.CancelFunc) {
			<-closed
			return context.WithTimeout(context.Background(), flushTime)
		})
	}()
	return cancel, ended
}
