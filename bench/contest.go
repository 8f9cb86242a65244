package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// contest measures programs beside the first of them. It keeps the servers of one fixture running
// from work to work; those that aren't measured are idle.
type contest struct {
	programs []*program
	rounds   int
	pace     pace
	progress io.Writer

	fixture string
	servers map[*program]*server
}

// run measures one work in rounds: floor, ours; ours, floor; floor, ours … The result has, for each program but the first, the rounds of both.
func (c *contest) run(ctx context.Context, w *work) ([][]round, error) {
	if w.measure == nil {
		if err := c.enter(ctx, w); err != nil {
			return nil, err
		}
	} else {
		c.close()
	}
	rivals := make([][]round, len(c.programs)-1)
	for i := range c.rounds {
		samples := make([]sample, len(c.programs))
		order := turns(len(c.programs), i)
		for _, k := range order {
			var err error
			if samples[k], err = c.measure(ctx, c.programs[k], w); err != nil {
				return nil, err
			}
		}
		for k := range rivals {
			r := round{First: c.programs[0].name, Floor: samples[0], Ours: samples[k+1]}
			if slices.Index(order, k+1) < slices.Index(order, 0) {
				r.First = c.programs[k+1].name
			}
			rivals[k] = append(rivals[k], r)
		}
		var line strings.Builder
		for k, p := range c.programs {
			fmt.Fprintf(&line, ", %s %s", p.name, w.brief(samples[k]))
		}
		fmt.Fprintf(c.progress, "%s, round %d of %d: %s\n", w.name, i+1, c.rounds, line.String()[2:])
	}
	return rivals, nil
}

// turns is the order in which n programs are measured in a round: each is the first in turn.
func turns(n, round int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = (round + i) % n
	}
	return order
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
	s, err := measure(ctx, c.servers[p], &w.traffic, max(c.pace.warm, p.warm), c.pace.window)
	if err == nil && p.settle != nil {
		err = p.settle(ctx, c.servers[p])
	}
	return s, err
}

// enter starts and prepares the servers of the work's fixture, unless they
// are running.
func (c *contest) enter(ctx context.Context, w *work) error {
	if c.fixture == w.fixture {
		return nil
	}
	c.close()
	c.servers = map[*program]*server{}
	for _, p := range c.programs {
		s, err := p.start(ctx, w.fixture, w.maxOpen)
		if err != nil {
			return err
		}
		c.servers[p] = s
		if err := w.prepare(s); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		if p.settle != nil {
			if err := p.settle(ctx, s); err != nil {
				return fmt.Errorf("prepare: %w", err)
			}
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
