package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/datadir"
)

const (
	// historyRounds is how many rounds the works of the history have at most: each of three settings is the first in one.
	historyRounds = 3
	// historyTurns is how many turns one has, of a third of a measurement: a disk's speed changes within seconds, and the turns of the settings lie
	// next to each other.
	historyTurns = 7
	// replicaWarm is the warm-up with a replica: longer than its interval, so that what is counted has its share of uploads.
	replicaWarm = 1200 * time.Millisecond
	// settleLimit is how long a replica may take to come to rest: by the default of 50 requests a second, of which a new database takes five.
	settleLimit = 2 * time.Minute

	historyPrefix = "history: "
)

// severalCount is how many databases the work of many has here: enough that a replica makes all the requests that it may, few enough that it comes to rest
// in seconds afterwards.
const severalCount = 200

// historyWorks are the works that write, which are measured without history, with it, and with a replica too.
func historyWorks() (list []work) {
	for _, w := range works() {
		switch w.name {
		case "durable insert, 64 connections", "batch of 100 inserts, 8 connections":
		case "1,000 databases, insert, 16 connections":
			w.name = fmt.Sprintf("%d databases, insert, 16 connections", severalCount)
			w.fixture, w.prepare, w.traffic.databases = "several", prepareMany(severalCount), severalCount
		default:
			continue
		}
		w.name = historyPrefix + w.name
		w.bars = []bar{{metricRate, 0, shown}}
		list = append(list, w)
	}
	return list
}

// keeping is a way to keep history, and how much of the speed without one it must leave.
type keeping struct {
	name  string
	least float64
}

var (
	keepsHistory = keeping{"with history", 0.9}
	keepsReplica = keeping{"with a replica in S3", 0.8}
)

// measureHistory measures the works with and without history. The replica is left out, by name, where there is no S3 server.
func measureHistory(ctx context.Context, root string, ours *program, list []work, rounds int, pace pace) (reports []workReport, verdicts []verdict, err error) {
	with := func(name string, env ...string) *program {
		p := *ours
		p.name, p.env, p.dir = name, env, filepath.Join(filepath.Dir(ours.dir), "history-"+strings.ReplaceAll(name, " ", "-"))
		return &p
	}
	programs, keeps := []*program{with("without", "PERSQLD_HISTORY=0s"), with(keepsHistory.name)}, []keeping{keepsHistory}
	gw, missing, err := startGateway(ctx, root)
	if err != nil {
		return nil, nil, err
	}
	behind := []float64{}
	if gw != nil {
		defer gw.stop()
		p := with(keepsReplica.name, gw.env()...)
		p.warm = replicaWarm
		p.settle = func(ctx context.Context, s *server) error {
			d, err := settleReplica(ctx, s)
			behind = append(behind, float64(d))
			return err
		}
		programs, keeps = append(programs, p), append(keeps, keepsReplica)
	}
	rounds *= historyTurns
	pace.window /= 3
	c := &contest{programs: programs, rounds: rounds, pace: pace, progress: os.Stderr}
	defer c.close()
	for i := range list {
		w := &list[i]
		// A replica has one server: each fixture is another prefix.
		if gw != nil {
			programs[2].env = append(gw.env(), "PERSQLD_REPLICA_URL="+gw.url(w.fixture))
		}
		rivals, err := c.run(ctx, w)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", w.name, err)
		}
		settled := rounds
		if isDoubtful(keeps, rivals) {
			fmt.Fprintf(os.Stderr, "%s: below a bar or near it, measured again\n", w.name)
			more, err := c.run(ctx, w)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", w.name, err)
			}
			for k := range rivals {
				rivals[k] = append(rivals[k], more[k]...)
			}
			settled += rounds
		}
		for k, keeps := range keeps {
			name := w.name + ", " + keeps.name
			reports = append(reports, workReport{Work: name, Rounds: rivals[k]})
			verdicts = append(verdicts, judge(name, bar{metricRate, keeps.least, atLeast}, rivals[k]), judge(name, bar{metricCPU, 0, shown}, rivals[k]))
		}
		if gw == nil {
			verdicts = append(verdicts, skip(w.name+", "+keepsReplica.name, metricRate.Name, fmt.Sprintf("≥ %.2f ×", keepsReplica.least), missing))
			continue
		}
		// The last settlings are those of this work's rounds; how far the replica was behind tells whether it was kept at all.
		verdicts = append(verdicts, verdict{Work: w.name + ", " + keepsReplica.name, Metric: "behind", Ours: median(behind[len(behind)-settled:]), Bar: "shown", Pass: true, format: formatSeconds})
	}
	return reports, verdicts, nil
}

// nearBar is how near to its bar a ratio is not believed yet: so much do a machine's neighbours move the median of the rounds.
const nearBar = 0.05

// isDoubtful tells whether a ratio is below its bar, or so little above that more rounds must tell. They count together with those before, so that a real
// miss stays one.
func isDoubtful(keeps []keeping, rivals [][]round) bool {
	for k, keeps := range keeps {
		if v := judge("", bar{metricRate, keeps.least + nearBar, atLeast}, rivals[k]); !v.Pass {
			return true
		}
	}
	return false
}

// settleReplica waits until a server's replica has everything, and returns how old the oldest was that it did not have.
func settleReplica(ctx context.Context, s *server) (behind time.Duration, err error) {
	until := time.Now().Add(settleLimit)
	for first := true; ; first = false {
		m, err := scrape(ctx, s)
		if err != nil {
			return 0, err
		}
		if first {
			behind = time.Duration(m["persqld_replica_behind_seconds"] * float64(time.Second))
		}
		databases, ok := m["persqld_replica_behind_databases"]
		switch {
		case !ok:
			return 0, fmt.Errorf("%w: no persqld_replica_behind_databases in /metrics", errAnswer)
		case databases == 0:
			return behind, nil
		case time.Now().After(until):
			return behind, fmt.Errorf("%w: the replica of %.0f databases is behind after %s\n%s", errNotReady, databases, settleLimit, s.logTail())
		}
		if err := wait(ctx, 100*time.Millisecond, nil); err != nil {
			return behind, err
		}
	}
}

// errNoDatabase is a data directory without what was made in it.
var errNoDatabase = errors.New("no database file")

// largestFile is the largest database file below a data directory: that of its only big database.
func largestFile(data string) (path string, size int64, err error) {
	err = filepath.WalkDir(datadir.Layout(data).Databases(), func(p string, e fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(p) != ".db" {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if fi.Size() > size {
			path, size = p, fi.Size()
		}
		return nil
	})
	if err == nil && path == "" {
		err = fmt.Errorf("%w in %s", errNoDatabase, data)
	}
	return path, size, err
}
