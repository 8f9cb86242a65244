package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

const (
	backgroundCount = 10_000
	backgroundBusy  = 100 // of them are written to once a second
	// backgroundTime is how long that is measured: the keeper comes once in it.
	backgroundTime = time.Minute
	backgroundWarm = 3 * time.Second
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
	var got [2]background
	var servers [2]*server
	for i, name := range []string{"without", "with"} {
		p := *ours
		p.dir = filepath.Join(filepath.Dir(ours.dir), "background-"+name)
		if i == 0 {
			p.env = []string{"PERSQLD_HISTORY=0s"}
		}
		s, err := startBackground(ctx, &p)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		servers[i] = s
	}
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
	name := fmt.Sprintf("10,000 databases, %d written once a second", backgroundBusy)
	core, memory := got[1].core-got[0].core, got[1].resident-got[0].resident
	shownCore := beside(name+": all of the server", "cores", got[0].core, got[1].core, "shown", true, formatCore)
	shownMemory := beside(name+": all of the server", "resident", got[0].resident, got[1].resident, "shown", true, formatMB)
	shownCore.Judged, shownMemory.Judged = false, false
	return []verdict{
		below(name+": history alone", "cores", core, backgroundCore, formatCore),
		below(name+": history alone", "resident", memory, backgroundMemory, formatMB),
		shownCore, shownMemory,
	}, nil
}

// startBackground makes the databases and starts a server anew on them, of which the busy ones are open and their logs differently long: so one or another
// is handed over all the time, as where they have been busy for long, and not all of them in the same second.
func startBackground(ctx context.Context, p *program) (*server, error) {
	s, err := p.start(ctx, "background", 0)
	if err != nil {
		return nil, err
	}
	create := newTemplate("db-"+slugMark, "query", `{"sql":"CREATE TABLE t(a INTEGER PRIMARY KEY, b)"}`)
	err = visit(s, &traffic{request: create, connections: 32, databases: backgroundCount, keys: 1, limit: backgroundCount})
	s.stop()
	if err != nil {
		return nil, err
	}
	if s, err = p.start(ctx, "background", 0); err != nil {
		return nil, err
	}
	c, err := dial(s.address)
	if err != nil {
		s.stop()
		return nil, err
	}
	defer c.close()
	for i := range backgroundBusy {
		// A row of so many pages; one that is as long as the log may be is copied back at once.
		request := queryRequest(fmt.Sprintf("db-%0"+strconv.Itoa(slugDigits)+"d", i), fmt.Sprintf("INSERT INTO t(b) VALUES (zeroblob(%d))", 4096*logFrames*i/backgroundBusy))
		if _, err := c.do(request.bytes); err != nil {
			s.stop()
			return nil, err
		}
	}
	return s, nil
}

// watchBackground writes to each busy database once a second.
func watchBackground(ctx context.Context, s *server) (b background, err error) {
	c, err := dial(s.address)
	if err != nil {
		return b, err
	}
	defer c.close()
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
