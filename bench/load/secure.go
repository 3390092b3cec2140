package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// requestTimeout bounds one request with its handshake over TLS.
const requestTimeout = 5 * time.Second

// runTLS makes the load over TLS: a goroutine for each connection.
func runTLS(ctx context.Context, cfg *Config) (*Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var measuring, came atomic.Bool
	results := make([]Result, cfg.Connections)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			w := secure{cfg: cfg, res: &results[i], measuring: &measuring, came: &came}
			w.run(ctx)
		})
	}
	err := sleep(ctx, cfg.Warmup)
	var elapsed time.Duration
	if err == nil {
		cfg.AtStart()
		began := time.Now()
		measuring.Store(true)
		err = sleep(ctx, cfg.Duration)
		for err == nil && !came.Load() && time.Since(began) < cfg.Duration+firstAnswer {
			err = sleep(ctx, time.Millisecond)
		}
		measuring.Store(false)
		elapsed = time.Since(began)
		cfg.AtEnd()
	}
	cancel()
	wg.Wait()
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	sum := &Result{Elapsed: elapsed}
	for i := range results {
		r := &results[i]
		sum.Requests += r.Requests
		sum.Errors += r.Errors
		sum.Reconnects += r.Reconnects
		sum.Latency.Merge(&r.Latency)
		if sum.FirstError == "" {
			sum.FirstError = r.FirstError
		}
	}
	sum.Exchanges = float64(sum.Requests)
	return sum, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// secure is one TLS connection after another.
type secure struct {
	cfg       *Config
	res       *Result
	measuring *atomic.Bool
	came      *atomic.Bool // some connection has had an answer or an error
	conn      net.Conn
	answer    answer
	buf       [16 << 10]byte
}

func (w *secure) run(ctx context.Context) {
	defer w.hangUp()
	for ctx.Err() == nil {
		start := time.Now()
		err := w.exchange(ctx)
		if ctx.Err() != nil {
			return
		}
		if w.measuring.Load() {
			if err != nil {
				w.res.fail(err)
			} else {
				w.res.Requests++
				w.res.Latency.Record(time.Since(start))
			}
			w.came.Store(true)
		}
		if err != nil {
			w.hangUp()
			_ = sleep(ctx, 10*time.Millisecond) // a server that refuses everything is not asked in a tight loop
			continue
		}
		if w.cfg.Reconnect || w.answer.close {
			if w.answer.close && !w.cfg.Reconnect && w.measuring.Load() {
				w.res.Reconnects++
			}
			w.hangUp()
		}
	}
}

// exchange sends one request and reads its answer, after dialling if need be.
func (w *secure) exchange(ctx context.Context) error {
	deadline := time.Now().Add(requestTimeout)
	if w.conn == nil {
		d := net.Dialer{Deadline: deadline}
		raw, err := d.DialContext(ctx, "tcp", w.cfg.Addr.String())
		if err != nil {
			return err
		}
		w.conn = tls.Client(raw, w.cfg.TLS)
	}
	conn := w.conn // the function below may still run when w.conn is another
	w.answer.reset()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	// The end of the context wakes a goroutine that waits for an answer.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(w.cfg.Request); err != nil {
		return err
	}
	for {
		n, err := conn.Read(w.buf[:])
		if n > 0 {
			if done, err := w.answer.feed(w.buf[:n]); done || err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return errTruncated
		}
		if err != nil {
			return err
		}
	}
}

func (w *secure) hangUp() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}
