package queue

// link puts w at the newest end.
func (q *Queue) link(w *Waiter) {
	c := &q.classes[w.rank]
	f := c.flows[w.Caller]
	if f == nil {
		f = q.newFlow(c, w.Caller)
	}
	w.flow = f
	if w.prev = f.newest; w.prev != nil {
		w.prev.next = w
	} else {
		f.oldest = w
	}
	f.newest = w
	if w.older = q.newest; w.older != nil {
		w.older.newer = w
	} else {
		q.oldest = w
	}
	q.newest = w
	f.n++
	c.n++
	q.length++
}

// take takes w out.
func (q *Queue) take(w *Waiter, why Result) {
	f, c := w.flow, &q.classes[w.rank]
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		f.oldest = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		f.newest = w.prev
	}
	if w.older != nil {
		w.older.newer = w.newer
	} else {
		q.oldest = w.newer
	}
	if w.newer != nil {
		w.newer.older = w.older
	} else {
		q.newest = w.older
	}
	w.next, w.prev, w.newer, w.older, w.flow = nil, nil, nil, nil, nil
	w.result = why
	f.n--
	c.n--
	q.length--
	if f.n == 0 {
		q.dropFlow(c, f)
	}
	if q.length == 0 {
		q.least = 0
	}
}

// newFlow gives a caller a turn behind all others.
func (q *Queue) newFlow(c *class, caller uint64) *flow {
	f := q.spare
	if f != nil {
		q.spare = f.next
	} else {
		f = new(flow)
	}
	f.caller = caller
	if t := c.turn; t != nil {
		f.next, f.prev = t, t.prev
		t.prev.next, t.prev = f, f
	} else {
		f.next, f.prev, c.turn = f, f, f
	}
	c.flows[caller] = f
	return f
}

func (q *Queue) dropFlow(c *class, f *flow) {
	delete(c.flows, f.caller)
	switch {
	case f.next == f:
		c.turn = nil
	case c.turn == f:
		c.turn = f.next
	}
	f.next.prev, f.prev.next = f.prev, f.next
	// No more are kept than have been in use at a time, which Size bounds.
	*f = flow{next: q.spare}
	q.spare = f
}
