package store

// list is the open databases in order of use. The links are the actors' own, so that using one costs no memory.
type list struct{ head, tail *actor }

func (l *list) push(a *actor) {
	a.prev, a.next = nil, l.head
	if l.head != nil {
		l.head.prev = a
	} else {
		l.tail = a
	}
	l.head = a
}

func (l *list) remove(a *actor) {
	if a.prev != nil {
		a.prev.next = a.next
	} else if l.head == a {
		l.head = a.next
	} else {
		return // not in the list
	}
	if a.next != nil {
		a.next.prev = a.prev
	} else {
		l.tail = a.prev
	}
	a.prev, a.next = nil, nil
}

// touch makes an open database the one used last; one that isn't open stays away.
func (l *list) touch(a *actor) {
	if l.head == a || a.prev == nil {
		return
	}
	l.remove(a)
	l.push(a)
}

// fifo is a queue of calls in a ring that grows with use and gives its memory back when it is empty.
type fifo struct {
	ring    []*call
	from, n int
}

func (q *fifo) len() int { return q.n }

func (q *fifo) push(c *call) {
	if q.n == len(q.ring) {
		bigger := make([]*call, max(4, 2*len(q.ring)))
		for i := range q.n {
			bigger[i] = q.ring[(q.from+i)%len(q.ring)]
		}
		q.ring, q.from = bigger, 0
	}
	q.ring[(q.from+q.n)%len(q.ring)] = c
	q.n++
}

func (q *fifo) pop() *call {
	c := q.ring[q.from]
	q.ring[q.from] = nil
	q.from = (q.from + 1) % len(q.ring)
	q.n--
	return c
}

// shrink gives a big ring back once it is empty.
func (q *fifo) shrink() {
	if q.n == 0 && len(q.ring) > 64 {
		q.ring, q.from = nil, 0
	}
}
