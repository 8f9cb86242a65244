package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
)

const (
	gateReads  = 20_000 // point reads of a turn, with or without the gate
	gateTurns  = 10
	boundReads = 3_000 // requests of a turn, by one token or the other
	boundTurns = 6
)

// measureGate looks at what it costs to know who asks and to decide: in this process, since over HTTP it would drown, and of a token that
// policies bind beside one that they don't.
func measureGate(ctx context.Context, ours *program, _ pace) ([]verdict, error) {
	verdicts, err := measureDecision(ctx)
	if err != nil {
		return nil, err
	}
	ratio, err := measureBound(ctx, ours)
	if err != nil {
		return nil, err
	}
	return append(verdicts, limit("point read under a policy, beside one without", "CPU", ratio, 2, func(f float64) string { return fmt.Sprintf("%.2f ×", f) })), nil
}

// measureDecision runs warm point reads with and without authentication and gate, in turns.
func measureDecision(ctx context.Context) (verdicts []verdict, err error) {
	dir, err := os.MkdirTemp("", "persqld-bench-gate-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := catalog.Open(ctx, filepath.Join(dir, "catalog.db"), catalog.Options{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ns, err := c.CreateNamespace(ctx, "bench")
	if err != nil {
		return nil, err
	}
	_, secret, err := c.CreateToken(ctx, catalog.NewToken{NamespaceID: ns.ID, Role: "readonly"})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "t.db")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		return nil, err
	}
	th := sqlite.NewThread()
	defer th.Close()
	conn, err := sqlite.Open(sqlite.Config{Path: path}, th)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for _, sql := range []string{createItem, fillItem(bigRows)} {
		if err := conn.Exec(sql); err != nil {
			return nil, err
		}
	}
	sql := []byte("SELECT id, name, price FROM item WHERE id = ?")
	g := &gate.Gate{}
	var list []*approval.Rule
	for i := range 50 {
		r := &approval.Rule{ID: fmt.Sprint(i), TableGlob: fmt.Sprintf("prod_%d_*", i), Action: approval.RequireApproval, MaxRows: approval.NoMaxRows}
		if err := r.Check(); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	rules := approval.NewRules(list)
	read := func(i int, decide bool) error {
		var permit sqlite.Policy
		if decide {
			t, err := c.Authenticate(secret)
			if err != nil {
				return err
			}
			g.Caller = gate.Caller{TokenID: t.ID, Role: t.Role}
			permit = g.Permit
		}
		s, _, err := conn.Prepare(sql, permit)
		if err != nil {
			return err
		}
		defer s.Done()
		if decide {
			if err := g.Judge(s); err != nil {
				return err
			}
			if _, err := g.Instead(s); err != nil {
				return err
			}
		}
		if err := s.Bind([]sqlite.Param{{Value: sqlite.Value{Kind: sqlite.Integer, Int: int64(keyFrom + i%bigRows)}}}); err != nil {
			return err
		}
		for {
			if more, err := s.Step(); err != nil || !more {
				return err
			}
		}
	}
	var times, allocs [3][]float64 // without, with, and with rules too
	for turn := range 3 * gateTurns {
		with := turn % 3
		g.Rules = nil
		if with == 2 {
			g.Rules = rules
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		for i := range gateReads {
			if err := read(i, with > 0); err != nil {
				return nil, err
			}
		}
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		times[with] = append(times[with], float64(took)/gateReads)
		allocs[with] = append(allocs[with], float64(after.Mallocs-before.Mallocs)/gateReads)
	}
	micros := func(f float64) string { return fmt.Sprintf("%.2f µs", f/float64(time.Microsecond)) }
	return []verdict{
		limit("authentication and gate, of a warm point read", "time", max(0, median(times[1])-median(times[0])), float64(5*time.Microsecond), micros),
		limit("authentication and gate, of a warm point read", "allocations", max(0, median(allocs[1])-median(allocs[0])), 1, func(f float64) string { return fmt.Sprintf("%.2f", f) }),
		limit("50 approval rules, of a warm statement", "time", max(0, median(times[2])-median(times[1])), float64(2*time.Microsecond), micros),
	}, nil
}

// measureBound is the CPU that the server takes for a point read by a token that a policy binds, over that of one without policies.
func measureBound(ctx context.Context, ours *program) (ratio float64, err error) {
	s, err := ours.start(ctx, "policies", 0)
	if err != nil {
		return 0, err
	}
	defer s.stop()
	if err := prepareOne(s); err != nil {
		return 0, err
	}
	c, err := dial(s.address)
	if err != nil {
		return 0, err
	}
	defer c.close()
	policy := newTemplate("one", "policies", `{"name":"some","tableName":"item","expression":"stock < :auth_most"}`)
	if _, err := c.do(policy.bytes); err != nil {
		return 0, err
	}
	mint := bytes.Replace(newTemplate("one", "x", `{"role":"readonly","claims":{"most":1000}}`).bytes, []byte("/v1/db/"+benchNamespace+"/one/x"), []byte("/v1/tokens"), 1)
	answer, err := c.do(mint)
	if err != nil {
		return 0, err
	}
	var made struct{ Data struct{ Token string } }
	if err := json.Unmarshal(answer, &made); err != nil {
		return 0, fmt.Errorf("read token: %w", err)
	}
	free := selectRequest("one")
	free.set(0, keyFrom+5)
	bound := bytes.Replace(free.bytes, []byte(benchToken), []byte(made.Data.Token), 1)
	var cpu [2][]float64
	for turn := range 2*boundTurns + 2 {
		request := [2][]byte{free.bytes, bound}[turn%2]
		before, err := cpuTime(s.pid())
		if err != nil {
			return 0, err
		}
		for range boundReads {
			if _, err := c.do(request); err != nil {
				return 0, fmt.Errorf("turn %s: %w", strconv.Itoa(turn), err)
			}
		}
		after, err := cpuTime(s.pid())
		if err != nil {
			return 0, err
		}
		if turn >= 2 { // the first two warm up
			cpu[turn%2] = append(cpu[turn%2], float64(after-before))
		}
	}
	return median(cpu[1]) / median(cpu[0]), nil
}
