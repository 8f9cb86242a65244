package main

import (
	"context"
	"fmt"
	"io"
)

// contest measures both programs. It keeps the servers of one fixture running
// from work to work; the one that isn't measured is idle.
type contest struct {
	floor, ours *program
	rounds      int
	pace        pace
	progress    io.Writer

	fixture string
	servers map[*program]*server
}

// run measures one work in rounds: floor, ours; ours, floor; floor, ours …
func (c *contest) run(ctx context.Context, w *work) ([]round, error) {
	if w.measure == nil {
		if err := c.enter(ctx, w); err != nil {
			return nil, err
		}
	} else {
		c.close()
	}
	var rounds []round
	for i := range c.rounds {
		order := []*program{c.floor, c.ours}
		if i%2 == 1 {
			order = []*program{c.ours, c.floor}
		}
		r := round{First: order[0].name}
		for _, p := range order {
			s, err := c.measure(ctx, p, w)
			if err != nil {
				return nil, err
			}
			if p == c.floor {
				r.Floor = s
			} else {
				r.Ours = s
			}
		}
		rounds = append(rounds, r)
		fmt.Fprintf(c.progress, "%s, round %d of %d: floor %s, ours %s\n", w.name, i+1, c.rounds, w.brief(r.Floor), w.brief(r.Ours))
	}
	return rounds, nil
}

// brief prints the work's first metric.
func (w *work) brief(s sample) string {
	m := w.bars[0].metric
	return m.format(m.of(s))
}

func (c *contest) measure(ctx context.Context, p *program, w *work) (sample, error) {
	if w.measure != nil {
		return w.measure(ctx, p, w, c.pace)
	}
	return measure(ctx, c.servers[p], &w.traffic, c.pace.warm, c.pace.window)
}

// enter starts and prepares both servers of the work's fixture, unless they
// are running.
func (c *contest) enter(ctx context.Context, w *work) error {
	if c.fixture == w.fixture {
		return nil
	}
	c.close()
	c.servers = map[*program]*server{}
	for _, p := range []*program{c.floor, c.ours} {
		s, err := p.start(ctx, w.fixture, w.maxOpen)
		if err != nil {
			return err
		}
		c.servers[p] = s
		if err := w.prepare(s); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	c.fixture = w.fixture
	return nil
}

// close stops the running servers.
func (c *contest) close() {
	for _, s := range c.servers {
		s.stop()
	}
	c.servers, c.fixture = nil, ""
}
