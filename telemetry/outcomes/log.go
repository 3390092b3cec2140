package outcomes

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// What waits to be written is bounded: this many records, each of which is taken
// without allocating, and twice, as the one half is written while the other fills.
const (
	waitExchanges = 4096
	waitAttempts  = 6144
	waitEvents    = 1024
)

const flushInterval = time.Second

// Options is what a Log is made from.
type Options struct {
	Config Config
	// Now is the clock of the records; it does not jump.
	Now func() time.Duration
	// Wall is the time of day; time.Now where it is nil.
	Wall func() time.Time
	// State gives the events that say how things stand: each file begins with them.
	State func(add func(Event))
	Log   *slog.Logger
}

// Log writes outcomes to files. Put and Event only copy into bounded memory; Run
// writes it out. A nil Log keeps nothing. It is safe for concurrent use.
type Log struct {
	opts  Options
	epoch uint64

	on   atomic.Bool
	full chan struct{} // holds one token: much waits

	mu      sync.Mutex
	front   batch
	dropped uint64 // not yet said in the log

	records, bytes, lost atomic.Uint64
	size                 atomic.Int64

	fileMu sync.Mutex // below: whoever writes
	back   batch
	file   *files // nil while off
	block  block
	out    []byte
	said   bool   // that it cannot write, in the process's own log
	told   uint64 // of dropped: that the next block will say
}

// batch is what waits.
type batch struct {
	exchanges []waiting
	attempts  []Attempt
	events    []Event
}

type waiting struct {
	Exchange
	n int // attempts that are kept
}

func (b *batch) reset() {
	clear(b.events)
	b.exchanges, b.attempts, b.events = b.exchanges[:0], b.attempts[:0], b.events[:0]
}

// New returns a log and opens its file, if it has one. The caller must call Run,
// which closes it.
func New(o Options) (*Log, error) {
	if o.Wall == nil {
		o.Wall = time.Now
	}
	l := &Log{opts: o, epoch: rand.Uint64(), full: make(chan struct{}, 1)}
	return l, l.Configure(o.Config)
}

// Configure changes where and how much is kept from now on. On an error nothing
// has changed.
func (l *Log) Configure(cfg Config) error {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	if l.file != nil && l.file.path == cfg.Path {
		l.file.cfg = cfg
		return nil
	}
	var next *files
	if cfg.Path != "" {
		var err error
		if next, err = openFiles(cfg); err != nil {
			return err
		}
	}
	if l.file != nil {
		l.flush()
		l.file.close()
	}
	l.file, l.said = next, false
	if next == nil {
		l.on.Store(false)
		return nil
	}
	l.mu.Lock()
	l.front.reset()
	if l.front.exchanges == nil {
		l.front = newBatch()
	}
	l.mu.Unlock()
	if l.back.exchanges == nil {
		l.back = newBatch()
	}
	l.on.Store(true)
	return nil
}

func newBatch() batch {
	return batch{make([]waiting, 0, waitExchanges), make([]Attempt, 0, waitAttempts), nil}
}

// On reports whether outcomes are kept. It is one atomic load.
func (l *Log) On() bool { return l != nil && l.on.Load() }

// Put keeps x with its attempts, of which at most MaxAttempts are. It copies
// them, does not allocate, and waits for nobody but others that copy.
func (l *Log) Put(x *Exchange, attempts []Attempt) {
	if !l.On() {
		return
	}
	attempts = attempts[:min(len(attempts), MaxAttempts)]
	l.mu.Lock()
	f := &l.front
	if len(f.exchanges) == cap(f.exchanges) || len(f.attempts)+len(attempts) > cap(f.attempts) {
		l.dropped++
		l.mu.Unlock()
		l.lost.Add(1)
		return
	}
	f.exchanges = append(f.exchanges, waiting{*x, len(attempts)})
	f.attempts = append(f.attempts, attempts...)
	due := len(f.exchanges) >= waitExchanges/2 || len(f.attempts) >= waitAttempts/2
	l.mu.Unlock()
	if due {
		l.wake()
	}
}

// Event keeps e.
func (l *Log) Event(e Event) {
	if !l.On() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.front.events) == waitEvents {
		l.dropped++
		l.lost.Add(1)
		return
	}
	l.front.events = append(l.front.events, e)
	if len(l.front.events) >= waitEvents/2 {
		l.wake()
	}
}

func (l *Log) wake() {
	select {
	case l.full <- struct{}{}:
	default:
	}
}

// Stats are a log's counts since the start.
type Stats struct {
	Records uint64 // written, exchanges and events
	Bytes   uint64 // written
	Dropped uint64 // lost: more came than was written, or the disk refused it
	Size    int64  // that all its files have now
}

// Stats returns the counts.
func (l *Log) Stats() Stats {
	if l == nil {
		return Stats{}
	}
	return Stats{Records: l.records.Load(), Bytes: l.bytes.Load(), Dropped: l.lost.Load(), Size: l.size.Load()}
}

// Run writes until ctx ends, then what is left, and closes the file.
func (l *Log) Run(ctx context.Context) error {
	if l == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			l.Event(Event{Kind: Ended, At: l.opts.Now()})
			l.fileMu.Lock()
			defer l.fileMu.Unlock()
			l.on.Store(false)
			if l.file != nil {
				l.flush()
				l.file.close()
				l.file = nil
			}
			return nil
		case <-tick.C:
		case <-l.full:
		}
		l.Flush()
	}
}

// Flush writes out what waits, as Run does from time to time.
func (l *Log) Flush() {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	if l.file != nil {
		l.flush()
	}
}

// flush writes out what waits. fileMu is held.
func (l *Log) flush() {
	l.mu.Lock()
	l.front, l.back = l.back, l.front
	l.told += l.dropped
	l.dropped = 0
	l.mu.Unlock()
	defer l.back.reset()
	now := l.opts.Now()
	if l.file.due(now) {
		l.renew(now)
	}
	k := &l.block
	k.reset(now)
	events, attempts := l.back.events, l.back.attempts
	for i := range l.back.exchanges {
		x := &l.back.exchanges[i]
		// Events stand before what ended after them.
		for len(events) > 0 && events[0].At <= x.At+x.Duration {
			k.event(&events[0])
			events = events[1:]
			l.spill(now)
		}
		k.exchange(&x.Exchange, attempts[:x.n])
		attempts = attempts[x.n:]
		l.spill(now)
	}
	for i := range events {
		k.event(&events[i])
		l.spill(now)
	}
	l.write(now)
}

// spill writes the block when it has become long enough.
func (l *Log) spill(now time.Duration) {
	if len(l.block.b) >= blockBytes {
		l.write(now)
	}
}

// write writes the block, into another file when this one is full.
func (l *Log) write(now time.Duration) {
	k := &l.block
	if k.count == 0 {
		return
	}
	l.seal(now)
	if !l.file.fits(len(l.out)) {
		// How things stand goes before it.
		body, texts, count := k.b, k.texts, k.count
		k.b, k.texts = nil, nil
		l.renew(now)
		k.b, k.texts, k.count = body, texts, count
		l.seal(now)
	}
	l.commit(now)
}

func (l *Log) seal(now time.Duration) {
	l.out = l.block.seal(l.out[:0], blockHead{epoch: l.epoch, wall: l.opts.Wall(), now: now, dropped: l.told})
}

// renew begins another file with how things stand.
func (l *Log) renew(now time.Duration) {
	if err := l.file.rotate(now); err != nil {
		l.failed(err)
	}
	k := &l.block
	k.reset(now)
	if l.opts.State != nil {
		l.opts.State(func(e Event) { k.event(&e) })
	}
	if k.count > 0 {
		l.seal(now)
		l.commit(now)
	}
}

// commit writes what was sealed and empties the block.
func (l *Log) commit(now time.Duration) {
	k := &l.block
	err := l.file.append(l.out)
	l.size.Store(l.file.total())
	if err != nil {
		l.lost.Add(uint64(k.count))
		l.told += uint64(k.count)
		l.failed(err)
	} else {
		l.records.Add(uint64(k.count))
		l.bytes.Add(uint64(len(l.out)))
		l.told = 0
		if l.said {
			l.said = false
			l.opts.Log.Info("outcomes are written again", "event", "outcomes_written")
		}
	}
	k.reset(now)
}

func (l *Log) failed(err error) {
	if !l.said {
		l.said = true
		l.opts.Log.Error("cannot write outcomes; they are lost until that is mended", "event", "outcomes_failed", "error", err)
	}
}
