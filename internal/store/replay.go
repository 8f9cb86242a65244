package store

import "errors"

// What a savepoint does not isolate: an interrupted write, ON CONFLICT ROLLBACK, a full disk, an I/O error and an
// exhausted heap roll the whole transaction back, with the finished work of the requests before. Those are run
// again, as they were; the one that did it gets its error, or runs in a group of its own.

// lose takes the loss of the transaction in and decides whether c runs again.
func (w *worker) lose(c *call, tx *Tx, err error, mine bool) outcome {
	if !mine {
		c = nil
	}
	w.lostCall = c
	w.lostAgain = false
	if c == nil {
		return lost
	}
	c.err = translate(err, tx.quota)
	switch {
	case errors.Is(err, errPreempted):
		w.lostAgain = true
	case isNoMem(err) && !c.again.retried:
		c.again.retried = true
		w.lostAgain = true
	case tx.held > 0 && (c.again.poison == 0 || tx.index < c.again.poison):
		// Statements of its own that stand by themselves went with the transaction: they run again, up to the
		// one that ended it, which is told its error without being run.
		c.again.poison, c.again.why = tx.index, tx.lostBy
		w.lostAgain = true
	}
	return lost
}

// afterLoss brings the group back after its transaction was lost under the last call.
func (w *worker) afterLoss(a *actor) {
	c, again := w.lostCall, w.lostAgain
	w.lostCall = nil
	w.rollback(a)
	earlier := append([]*call(nil), w.group.pending...)
	w.group.reset()
	w.repeat(a, earlier)
	switch {
	case c == nil:
	case again:
		w.solo(a, c)
	default:
		c.answer(c.err)
	}
}

// repeat runs calls again, in one transaction if that works, else one by one, and answers them.
func (w *worker) repeat(a *actor, earlier []*call) {
	answered := 0
	for i, c := range earlier {
		if w.attempt(a, c, false) == settled {
			if !w.group.wrote {
				answered = i + 1
			}
			continue
		}
		// It went well once and doesn't now: something outside changed, such as the room on the disk. Alone each
		// gets what it deserves.
		w.lostCall = nil
		w.rollback(a)
		w.group.reset()
		for _, c := range earlier[answered:] {
			w.solo(a, c)
		}
		return
	}
	w.commit(a, false)
}

// solo runs a call in a group of its own, as often as it takes to come to an end.
func (w *worker) solo(a *actor, c *call) {
	for {
		c.move(callFinished, callRunning) // the watchdog may give it up again
		switch w.attempt(a, c, true) {
		case settled:
			w.commit(a, true)
			return
		case apart: // out of memory for the first time; a boundary or a preemption can't be here
			w.rollback(a)
			w.group.reset()
		case lost:
			call, again := w.lostCall, w.lostAgain
			w.lostCall = nil
			w.rollback(a)
			w.group.reset()
			if call == nil {
				return
			}
			if !again {
				c.answer(c.err)
				return
			}
		}
	}
}
