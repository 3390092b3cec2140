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
	// Path is "stdout", "stderr" or a file, which is appended to and made with
	// mode 0640.
	Path string
	// Query writes the path with its query. Off by default, since queries
	// often carry secrets.
	Query bool
	// Sink is written to instead of Path if set.
	Sink io.Writer
}

// AccessLog writes one JSON object a line and exchange. Write only copies into
// memory; Run writes it out. A nil AccessLog takes records and drops them.
type AccessLog struct {
	cfg AccessLogConfig

	mu      sync.Mutex
	front   []byte // filled by Write
	dropped uint64 // since it was last said in the log
	back    []byte // being written out; only Run touches it
	torn    bool   // the last write ended within a line; only Run touches it

	records, lost atomic.Uint64
	full          chan struct{} // holds one token: front is over flushBytes
	scratch       sync.Pool     // *[]byte, a line in the making

	fileMu sync.Mutex
	file   *os.File // nil unless Path is a file
	sink   io.Writer
	ended  bool // Run has closed the file
}

// NewAccessLog opens the sink. The caller must call Run, which closes it.
func NewAccessLog(cfg AccessLogConfig) (*AccessLog, error) {
	l := &AccessLog{cfg: cfg, full: make(chan struct{}, 1)}
	l.scratch.New = func() any { b := make([]byte, 0, 2048); return &b }
	switch {
	case cfg.Sink != nil:
		l.sink = cfg.Sink
	case cfg.Path == "stdout":
		l.sink = os.Stdout
	case cfg.Path == "stderr":
		l.sink = os.Stderr
	case cfg.Path == "":
		return nil, errors.New("access log: no path; use stdout, stderr or a file")
	default:
		if err := l.Reopen(); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Reopen opens the file anew, after it was moved away by log rotation. It does
// nothing for other sinks. When the file cannot be opened, the old one stays
// in use. After Run has ended it fails with os.ErrClosed.
func (l *AccessLog) Reopen() error {
	if l == nil || l.cfg.Sink != nil || l.cfg.Path == "stdout" || l.cfg.Path == "stderr" {
		return nil
	}
	f, err := os.OpenFile(l.cfg.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("access log: cannot open the file: %w", err)
	}
	l.fileMu.Lock()
	if l.ended {
		l.fileMu.Unlock()
		return fmt.Errorf("access log: cannot open the file: %w", errors.Join(os.ErrClosed, f.Close()))
	}
	old := l.file
	l.file, l.sink = f, f
	l.fileMu.Unlock()
	if old != nil {
		return old.Close()
	}
	return nil
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
	line := appendRecord((*p)[:0], r, l.cfg.Query)
	l.mu.Lock()
	if len(l.front)+len(line) > bufferBytes {
		l.dropped++
		l.mu.Unlock()
		l.lost.Add(1)
	} else {
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
		select {
		case <-ctx.Done():
			err := l.flush()
			l.fileMu.Lock()
			defer l.fileMu.Unlock()
			l.ended = true
			if l.file != nil {
				err = errors.Join(err, l.file.Close())
				l.file, l.sink = nil, io.Discard
			}
			return err
		case <-tick.C:
		case <-l.full:
		}
		_ = l.flush() // counted, and said in the log when it works again
	}
}

// flush writes out what waits.
func (l *AccessLog) flush() error {
	l.mu.Lock()
	l.front, l.back = l.back[:0], l.front
	dropped := l.dropped
	l.dropped = 0
	l.mu.Unlock()
	records := len(l.back)
	if dropped > 0 {
		l.back = appendDropped(l.back, time.Now(), dropped)
	}
	if len(l.back) == 0 {
		return nil
	}
	l.fileMu.Lock()
	n, err := l.write(l.back)
	l.fileMu.Unlock()
	if err == nil {
		if cap(l.back) > 4*flushBytes && len(l.back) < flushBytes {
			l.back = nil // a burst is over: give its memory back
		}
		return nil
	}
	unsent := uint64(bytes.Count(l.back[min(n, records):records], []byte{'\n'}))
	if n < len(l.back) {
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
