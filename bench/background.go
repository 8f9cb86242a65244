package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/persqld/persqld/internal/datadir"
)

const (
	backgroundCount = 10_000
	backgroundBusy  = 100 // of them are written to once a second
	// backgroundTime is how long that is measured: the keeper comes once in it.
	backgroundTime = time.Minute
	// backgroundWarm is longer than what a start opens stays open (10 s): which databases that are is chance, and copying their logs back is none of the minute's.
	backgroundWarm = 20 * time.Second
	// backgroundStops is how often a server is stopped, until it does that in order, and backgroundRest how long it has to hand over before the next time.
	backgroundStops = 6
	backgroundRest  = 10 * time.Second
	// backgroundCore is how much of a core the history may take, and backgroundMemory how many bytes.
	backgroundCore   = 0.10
	backgroundMemory = 64e6
)

// background is what a server took while it was written to.
type background struct {
	core     float64 // of one core
	resident float64 // the most of the bytes that it had, once a second
}

// measureBackground looks at what history takes of a server with many databases of which some are written to: beside one that keeps none. Both are written to at
// the same time and at the same pace, so that what else the machine does hits both.
func measureBackground(ctx context.Context, ours *program, _ pace) ([]verdict, error) {
	var programs [2]program
	for i, name := range []string{"without", "with"} {
		programs[i] = *ours
		programs[i].dir = filepath.Join(filepath.Dir(ours.dir), "background-"+name)
	}
	programs[0].env = []string{"PERSQLD_HISTORY=0s"}
	for i := range programs {
		if err := makeBackground(ctx, &programs[i]); err != nil {
			return nil, err
		}
	}
	// Started anew, so that nothing is left in their memory of the making, and only then used, at once: databases close that are idle for seconds.
	var servers [2]*server
	for i := range programs {
		s, err := programs[i].start(ctx, "background", 0)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		servers[i] = s
	}
	kept := datadir.Layout(filepath.Join(programs[1].dir, "background")).History()
	before := datadir.NewMeter(kept).Bytes()
	var got [2]background
	var wg sync.WaitGroup
	var errs [2]error
	for i, s := range servers {
		wg.Go(func() { got[i], errs[i] = watchBackground(ctx, s) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	// Else what costs nothing is no history.
	grown := datadir.NewMeter(kept).Bytes() - before
	if grown <= 0 {
		return nil, fmt.Errorf("%w: no history was kept", errAnswer)
	}
	name := fmt.Sprintf("10,000 databases, %d written once a second", backgroundBusy)
	core, memory := got[1].core-got[0].core, got[1].resident-got[0].resident
	shownCore := beside(name+": all of the server", "cores", got[0].core, got[1].core, "shown", true, formatCore)
	shownMemory := beside(name+": all of the server", "resident", got[0].resident, got[1].resident, "shown", true, formatMB)
	shownCore.Judged, shownMemory.Judged = false, false
	return []verdict{
		below(name+": history alone", "cores", core, backgroundCore, formatCore),
		below(name+": history alone", "resident", memory, backgroundMemory, formatMB),
		shownCore, shownMemory,
		{Work: name + ": handed to the history", Metric: "bytes", Ours: float64(grown), Bar: "shown", Pass: true, format: formatMB},
	}, nil
}

// makeBackground makes the databases, and stops the server until it stopped in order. On a slow disk to close so many takes longer than a server may, and then
// the next one opens all of them to hand over what is left: that is the price of a crash, not of history.
func makeBackground(ctx context.Context, p *program) error {
	create := newTemplate("db-"+slugMark, "query", `{"sql":"CREATE TABLE t(a INTEGER PRIMARY KEY, b)"}`)
	for try := range backgroundStops {
		s, err := p.start(ctx, "background", 0)
		if err != nil {
			return err
		}
		if try == 0 {
			err = visit(s, &traffic{request: create, connections: 32, databases: backgroundCount, keys: 1, limit: backgroundCount})
		} else {
			err = wait(ctx, backgroundRest, nil)
		}
		s.stop()
		if err != nil {
			return err
		}
		// It is what a server leaves behind that has not handed over all.
		_, err = os.Stat(datadir.Layout(filepath.Join(p.dir, "background")).CommitTimes())
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: it did not stop in order %d times", errNotReady, backgroundStops)
}

// watchBackground writes to each busy database once a second.
func watchBackground(ctx context.Context, s *server) (b background, err error) {
	c, err := dial(s.address)
	if err != nil {
		return b, err
	}
	defer c.close()
	// First a row of so many pages that their logs are differently long: so one or another is handed over all the time, as where they have been busy for long,
	// and not all of them in the same second.
	for i := range backgroundBusy {
		slug := fmt.Sprintf("db-%0*d", slugDigits, i)
		request := queryRequest(slug, fmt.Sprintf("INSERT INTO t(b) VALUES (zeroblob(%d))", 4096*logFrames*i/backgroundBusy))
		if _, err := c.do(request.bytes); err != nil {
			return b, err
		}
	}
	request := newTemplate("db-"+slugMark, "query", `{"sql":"INSERT INTO t(b) VALUES (?)","params":[`+keyMark+`]}`)
	var before time.Duration
	var from time.Time
	began := time.Now()
	for i := 0; ; i++ {
		if from.IsZero() && time.Since(began) >= backgroundWarm {
			if before, err = cpuTime(s.pid()); err != nil {
				return b, err
			}
			from = time.Now()
		}
		if !from.IsZero() && i%backgroundBusy == 0 {
			rss, err := residentBytes(s.pid())
			if err != nil {
				return b, err
			}
			b.resident = max(b.resident, float64(rss))
		}
		if !from.IsZero() && time.Since(from) >= backgroundTime {
			break
		}
		request.set(i%backgroundBusy, keyFrom)
		if _, err := c.do(request.bytes); err != nil {
			return b, fmt.Errorf("%w\n%s", err, s.logTail())
		}
		if err := wait(ctx, time.Until(began.Add(time.Second*time.Duration(i+1)/backgroundBusy)), nil); err != nil {
			return b, err
		}
	}
	after, err := cpuTime(s.pid())
	b.core = float64(after-before) / float64(time.Since(from))
	return b, err
}

// below is a verdict on one number, which must be less than bound.
func below(trial, what string, got, bound float64, format func(float64) string) verdict {
	return verdict{Work: trial, Metric: what, Ours: got, Bar: "< " + format(bound), Pass: got < bound, Judged: true, format: format}
}

func formatCore(f float64) string { return fmt.Sprintf("%.1f %%", 100*f) }
