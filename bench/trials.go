package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// trial is a measurement of persqld alone, under conditions that a floor can't stand.
type trial struct {
	name string
	run  func(ctx context.Context, ours *program, pace pace) ([]verdict, error)
}

func trials() []trial {
	return []trial{
		{"gate", measureGate},
		{"row meter", measureMeter},
		{"fairness", measureFairness},
		{"100,000 databases", measureRegistered},
		{"snapshot", measureSnapshot},
		{"restore", measureRestore},
		{"disk of history", measureDisk},
		{"10,000 databases, 100 written", measureBackground},
		{"usage", measureUsage},
		{"branches", measureBranches},
		{"feed", measureFeed},
		{"sign-in", measureSignIn},
	}
}

// limit is a verdict on one number, which must be at most max.
func limit(trial, what string, got, max float64, format func(float64) string) verdict {
	return verdict{Work: trial, Metric: what, Ours: got, Bar: "≤ " + format(max), Pass: got <= max, Judged: true, format: format}
}

func formatSeconds(f float64) string { return fmt.Sprintf("%.2f s", f/float64(time.Second)) }
func formatMillis(f float64) string  { return fmt.Sprintf("%.1f ms", f/float64(time.Millisecond)) }
func formatMB(f float64) string      { return fmt.Sprintf("%.0f MB", f/1e6) }
func formatCount(f float64) string   { return fmt.Sprintf("%.0f", f) }

const (
	fairCrowd  = 64
	fairProbes = 2000
)

// heavy are what the crowd runs.
var heavy = []string{
	"WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c) SELECT count(*) FROM c",
	"WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c) SELECT max(a.n * b.n) FROM c a, c b",
	"WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 2000000) SELECT n, hex(n) FROM c ORDER BY 2 DESC LIMIT 1",
	"WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 5000000) SELECT sum(length(printf('%d', n))) FROM c",
}

func queryRequest(slug, sql string) template {
	return newTemplate(slug, "query", `{"sql":`+strconv.Quote(sql)+`}`)
}

// crowd keeps n connections busy, each on a database of its own, until ctx ends.
func crowd(ctx context.Context, s *server, n int, statements []string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			request := queryRequest(fmt.Sprintf("crowd-%d", i), statements[i%len(statements)])
			for ctx.Err() == nil {
				c, err := dial(s.address)
				if err != nil {
					return
				}
				stopped := context.AfterFunc(ctx, c.close)
				for ctx.Err() == nil {
					// What becomes of it is not what is measured: it may be stopped for taking too long.
					if _, err := c.conn.Write(request.bytes); err != nil {
						break
					}
					if _, err := c.readAnswer(); err != nil {
						break
					}
				}
				stopped()
				c.close()
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// probe sends requests one after another and returns the 99th percentile of their times.
func probe(s *server, request []byte, n int) (time.Duration, error) {
	c, err := dial(s.address)
	if err != nil {
		return 0, err
	}
	defer c.close()
	times := make([]time.Duration, n)
	for i := range times {
		began := time.Now()
		if _, err := c.conn.Write(request); err != nil {
			return 0, fmt.Errorf("send request: %w", err)
		}
		status, err := c.readAnswer()
		if err != nil {
			return 0, fmt.Errorf("read answer: %w", err)
		}
		if status != 200 {
			return 0, fmt.Errorf("%w: %d %.300s", errRefused, status, c.body)
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times[n*99/100], nil
}

// measureFairness looks at a quiet tenant and the health check beside a crowd of heavy statements. That an honest long one
// gets its share beside another namespace's crowd is the end-to-end suite's to show.
func measureFairness(ctx context.Context, ours *program, pace pace) ([]verdict, error) {
	s, err := ours.start(ctx, "fairness", 1000)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	if err := prepareOne(s); err != nil {
		return nil, err
	}
	point := selectRequest("one")
	point.set(0, keyFrom+5)
	health := []byte("GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n")
	var alone, loaded, healthy time.Duration
	if alone, err = probe(s, point.bytes, fairProbes); err != nil {
		return nil, err
	}
	stop := crowd(ctx, s, fairCrowd, heavy)
	if err := wait(ctx, pace.settle, nil); err != nil {
		return nil, err
	}
	if loaded, err = probe(s, point.bytes, fairProbes); err == nil {
		healthy, err = probe(s, health, 500)
	}
	stop()
	if err != nil {
		return nil, err
	}
	bound := max(4*alone, 15*time.Millisecond)

	return []verdict{
		limit("quiet tenant, alone", "p99", float64(alone), float64(time.Second), formatMillis),
		limit("quiet tenant, beside 64 heavy statements", "p99", float64(loaded), float64(bound), formatMillis),
		limit("/healthz beside 64 heavy statements", "p99", float64(healthy), float64(100*time.Millisecond), formatMillis),
	}, nil
}

const (
	registered     = 100_000
	touched        = 5_000 // in a minute, at random
	fewDescriptors = 256
)

// measureRegistered looks at a server with a hundred thousand databases: how soon it is ready, what it takes, and that it
// keeps to the descriptors that it has.
func measureRegistered(ctx context.Context, ours *program, pace pace) ([]verdict, error) {
	s, err := ours.start(ctx, "registered", 0)
	if err != nil {
		return nil, err
	}
	stopped := false
	defer func() {
		if !stopped {
			s.stop()
		}
	}()
	create := newTemplate("db-"+slugMark, "query", `{"sql":"CREATE TABLE t(a INTEGER PRIMARY KEY, b)"}`)
	if err := visit(s, &traffic{request: create, connections: 32, databases: registered, keys: 1, limit: registered}); err != nil {
		return nil, err
	}
	s.stop()
	stopped = true
	var verdicts []verdict
	ready := func(what string) error {
		began := time.Now()
		if s, err = ours.start(ctx, "registered", 0); err != nil {
			return err
		}
		stopped = false
		verdicts = append(verdicts, limit("100,000 databases", what, float64(time.Since(began)), float64(5*time.Second), formatSeconds))
		return nil
	}
	if err := ready("ready"); err != nil {
		return nil, err
	}
	request := newTemplate("db-"+slugMark, "query", `{"sql":"INSERT INTO t(b) VALUES (?)","params":[`+keyMark+`]}`)
	most, err := touch(ctx, s, request, touched, time.Minute)
	if err != nil {
		return nil, err
	}
	verdicts = append(verdicts, limit("100,000 databases, 5,000 touched a minute", "resident", float64(most), 2<<30, formatMB))
	if err := s.cmd.Process.Kill(); err != nil {
		return nil, fmt.Errorf("kill: %w", err)
	}
	<-s.exited
	stopped = true
	if err := ready("ready after kill -9"); err != nil {
		return nil, err
	}
	s.stop()
	stopped = true

	few := *ours
	few.command = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, fewDescriptors)}, ours.command...)
	if s, err = few.start(ctx, "registered", 0); err != nil {
		return nil, err
	}
	stopped = false
	if _, err := touch(ctx, s, request, 2_000, 0); err != nil {
		return nil, fmt.Errorf("with %d descriptors: %w", fewDescriptors, err)
	}
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(s.pid()), "fd"))
	if err != nil {
		return nil, fmt.Errorf("count descriptors: %w", err)
	}
	verdicts = append(verdicts, limit("2,000 databases with 256 descriptors", "descriptors", float64(len(open)), fewDescriptors, formatCount))
	return verdicts, nil
}

// touch writes to n databases at random, spread over a time, and returns the most memory that the server had meanwhile.
func touch(ctx context.Context, s *server, request template, n int, over time.Duration) (most int64, err error) {
	c, err := dial(s.address)
	if err != nil {
		return 0, err
	}
	defer c.close()
	request = request.clone()
	began := time.Now()
	for i := range n {
		request.set(rand.IntN(registered), keyFrom)
		if _, err := c.do(request.bytes); err != nil {
			return most, err
		}
		if i%100 == 0 {
			rss, err := residentBytes(s.pid())
			if err != nil {
				return most, err
			}
			most = max(most, rss)
		}
		if err := wait(ctx, time.Until(began.Add(over*time.Duration(i+1)/time.Duration(n))), nil); err != nil {
			return most, err
		}
	}
	return most, nil
}
