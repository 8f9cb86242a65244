package store

// What a savepoint does not isolate: an interrupted write, ON CONFLICT ROLLBACK, a full disk, an I/O error and an
// exhausted heap roll the whole transaction back, with the finished work of the requests before. Those are run
// again, as they were; the one that did it gets its error, or runs in a group of its own.

// lose takes the loss of the transaction in and decides whether c runs again.
func (w *worker) lose(c *call, tx *Tx, err error, mine bool) outcome {
	w.lostCall, w.lostAgain = nil, false
	if !mine {
		return lost
	}
	w.lostCall = c
	// The Job may have taken the error for its own to tell; what it wrote is gone all the same.
	c.err = translate(err, tx.quota)
	if c.err == nil {
		c.err = tx.why
	}
	switch {
	case tx.again != nil:
		c.again.retried = c.again.retried || isNoMem(tx.again)
		w.lostAgain = true
	case c.req.Steps && c.again.learn(tx.index, tx.why, tx.last):
		// Steps of its own that stand by themselves went with the transaction: they run again, up to the one that
		// ended it, which is told its error without being run.
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
