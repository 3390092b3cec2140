package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the access log.
const (
	flushBytes    = 64 << 10               // a flush is due when so much waits
	flushInterval = 100 * time.Millisecond // and at least so often
	bufferBytes   = 1 << 20                // what waits beyond this is dropped
	fieldBytes    = 4096                   // a longer text field is cut
)

// AccessLogConfig configures an AccessLog.
type AccessLogConfig struct {
	// Path is "stdout", "stderr", "off" or a file, which is appended to and made
	// with mode 0640.
	Path string
	// LeaveOut is the share of successful exchanges that get no record, 0 to 1.
	LeaveOut float64
	// Query writes the path with its query. Off by default, since queries
	// often carry secrets.
	Query bool
	// Sink is written to instead of Path if set.
	Sink io.Writer
}

// AccessLog writes one JSON object a line and exchange. Write only copies into
// memory; Run writes it out. A nil AccessLog takes records and drops them.
type AccessLog struct {
	query bool
	share atomic.Uint64 // of successful exchanges that get a record, as the bits of a float64; less than 0 when it is off

	mu      sync.Mutex
	wanted  string    // where records go from now on
	next    []*outlet // those to turn to in order, the last is wanted; none when that is in use
	done    bool      // Run ends
	front   []byte    // filled by Write
	dropped uint64    // since it was last said in the log
	back    []byte    // being written out; only Run touches it
	torn    bool      // the last write ended within a line; only Run touches it

	records, lost atomic.Uint64
	full          chan struct{} // holds one token: front is over flushBytes
	scratch       sync.Pool     // *[]byte, a line in the making

	fileMu sync.Mutex
	outlet
	ended bool // Run has closed the file
}

// outlet is where records go.
type outlet struct {
	at   int // how much of what waits belongs to those before
	path string
	sink io.Writer
	file *os.File // nil unless path is a file
}

// open returns the outlet that path names.
func open(path string) (*outlet, error) {
	o := &outlet{path: path}
	switch path {
	case "stdout":
		o.sink = os.Stdout
	case "stderr":
		o.sink = os.Stderr
	case offPath:
		o.sink = io.Discard
	case "":
		return nil, errors.New("access log: no path; use stdout, stderr, off or a file")
	default:
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if err != nil {
			return nil, fmt.Errorf("access log: cannot open the file: %w", err)
		}
		o.sink, o.file = f, f
	}
	return o, nil
}

// offPath is where nothing is written.
const offPath = "off"

func (o *outlet) close() error {
	if o == nil || o.file == nil {
		return nil
	}
	return o.file.Close()
}

// NewAccessLog opens the sink. The caller must call Run, which closes it.
func NewAccessLog(cfg AccessLogConfig) (*AccessLog, error) {
	l := &AccessLog{query: cfg.Query, wanted: cfg.Path, full: make(chan struct{}, 1)}
	l.scratch.New = func() any { b := make([]byte, 0, 2048); return &b }
	if cfg.Sink != nil {
		l.outlet = outlet{sink: cfg.Sink}
	} else {
		o, err := open(cfg.Path)
		if err != nil {
			return nil, err
		}
		l.outlet = *o
	}
	l.setShare(cfg.Path, cfg.LeaveOut)
	return l, nil
}

// Reopen opens the file anew, after it was moved away by log rotation. It does
// nothing for other sinks. When the file cannot be opened, the old one stays
// in use. After Run has ended it fails with os.ErrClosed.
func (l *AccessLog) Reopen() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	changing := len(l.next) > 0 // to what was opened just now
	l.mu.Unlock()
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	switch l.path {
	case "", "stdout", "stderr", offPath:
		return nil
	}
	switch {
	case l.ended:
		return fmt.Errorf("access log: cannot open the file: %w", os.ErrClosed)
	case changing:
		return nil
	}
	o, err := open(l.path)
	if err != nil {
		return err
	}
	old := l.outlet
	l.outlet = *o
	return old.close()
}

// Written returns how many records were taken.
func (l *AccessLog) Written() uint64 {
	if l == nil {
		return 0
	}
	return l.records.Load()
}

// Dropped returns how many records were lost because the sink was too slow or
// failed.
func (l *AccessLog) Dropped() uint64 {
	if l == nil {
		return 0
	}
	return l.lost.Load()
}

// Write takes a record. It neither blocks on the sink nor allocates.
func (l *AccessLog) Write(r *Record) {
	if l == nil {
		return
	}
	p := l.scratch.Get().(*[]byte)
	line := appendRecord((*p)[:0], r, l.query)
	l.mu.Lock()
	switch {
	case l.wanted == offPath: // since its exchange asked
		l.mu.Unlock()
	case len(l.front)+len(line) > bufferBytes:
		l.dropped++
		l.mu.Unlock()
		l.lost.Add(1)
	default:
		l.front = append(l.front, line...)
		due := len(l.front) >= flushBytes
		l.mu.Unlock()
		l.records.Add(1)
		if due {
			select {
			case l.full <- struct{}{}:
			default:
			}
		}
	}
	if cap(line) <= flushBytes {
		*p = line
		l.scratch.Put(p)
	}
}

// Run writes records out until ctx ends, then what is left, and closes the
// file. It returns only the error of that last step; before, records that
// cannot be written count as dropped. A sink that blocks for ever, such as a
// pipe that nobody reads, blocks Run too: bound the wait for it.
func (l *AccessLog) Run(ctx context.Context) error {
	if l == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		due := tick.C
		if l.share.Load() == off {
			due = nil // a change of that is told by full
		}
		select {
		case <-ctx.Done():
			l.mu.Lock()
			l.done = true
			l.mu.Unlock()
			err := l.flush()
			l.fileMu.Lock()
			defer l.fileMu.Unlock()
			l.ended = true
			err = errors.Join(err, l.outlet.close())
			l.sink, l.file = io.Discard, nil
			return err
		case <-due:
		case <-l.full:
		}
		_ = l.flush() // counted, and said in the log when it works again
	}
}

// flush writes out what waits, each part to its outlet.
func (l *AccessLog) flush() error {
	l.mu.Lock()
	l.front, l.back = l.back[:0], l.front
	dropped, next := l.dropped, l.next
	l.dropped, l.next = 0, nil
	l.mu.Unlock()
	records := len(l.back)
	if dropped > 0 {
		l.back = appendDropped(l.back, time.Now(), dropped)
	}
	var err error
	begin := 0
	for i, o := range next {
		if i == len(next)-1 && o.path == offPath {
			err = errors.Join(err, l.put(l.back[begin:], records-begin, dropped))
			begin, records, dropped = len(l.back), len(l.back), 0
		} else {
			err = errors.Join(err, l.put(l.back[begin:o.at], o.at-begin, 0))
			begin = o.at
		}
		err = errors.Join(err, l.turn(o))
	}
	err = errors.Join(err, l.put(l.back[begin:], records-begin, dropped))
	if err == nil && cap(l.back) > 4*flushBytes && len(l.back) < flushBytes {
		l.back = nil // a burst is over: give its memory back
	}
	return err
}

// put writes b, of which the first bytes are records and the rest says how many
// were dropped.
func (l *AccessLog) put(b []byte, records int, dropped uint64) error {
	if len(b) == 0 {
		return nil
	}
	l.fileMu.Lock()
	n, err := l.write(b)
	l.fileMu.Unlock()
	if err == nil {
		return nil
	}
	unsent := uint64(bytes.Count(b[min(n, records):records], []byte{'\n'}))
	if n < len(b) {
		unsent += dropped // not said yet; those were counted before
		l.lost.Add(unsent - dropped)
	} else {
		l.lost.Add(unsent)
	}
	l.mu.Lock()
	l.dropped += unsent
	l.mu.Unlock()
	return fmt.Errorf("access log: %w", err)
}

// write writes b to the sink. A line that an earlier write tore is ended
// first, so that only that one is spoilt. fileMu is held.
func (l *AccessLog) write(b []byte) (int, error) {
	if l.torn {
		if _, err := l.sink.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		l.torn = false
	}
	n, err := l.sink.Write(b)
	l.torn = n > 0 && n <= len(b) && b[n-1] != '\n'
	return n, err
}
