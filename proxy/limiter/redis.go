package limiter

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

//go:embed take.lua
var takeScript string

// redis keeps buckets in Redis.
type redis struct {
	gate
	config *Redis
	tls    *tls.Config
	script string // the SHA-1 by which Redis knows it
	pool   pool
}

func newRedis(c *Redis, t *tls.Config, now func() time.Duration, log *slog.Logger) *redis {
	sum := sha1.Sum([]byte(takeScript))
	return &redis{
		gate:   newGate("redis", c.Address, c.Timeout, c.MaxInFlight, c.Breaker, now, log),
		config: c, tls: t, script: hex.EncodeToString(sum[:]),
	}
}

func (r *redis) close() { r.pool.close() }

// bucket is one limit whose buckets Redis keeps.
type bucket struct {
	r      *redis
	prefix string
	rate   [3]string // as the script takes it
	leases *ratelimit.Leases
}

func newBucket(r *redis, l *Limit) *bucket {
	c := l.Rate
	requests, per := strconv.FormatInt(c.Requests, 10), strconv.FormatInt(micros(c.Per), 10)
	return &bucket{
		r: r,
		// Another rate means other buckets: what is missing is counted in its units.
		prefix: r.config.Prefix + l.Name + ":" + requests + "/" + per + ":",
		rate:   [3]string{requests, per, strconv.FormatInt(c.Size(), 10)},
		leases: ratelimit.NewLeases(*c, max(l.Lease, 1), max(l.Keys, 1)),
	}
}

// micros rounds up: who waits as long comes in time.
func micros(d time.Duration) int64 { return int64((d + time.Microsecond - 1) / time.Microsecond) }

// Take implements Limiter.
func (b *bucket) Take(now, within time.Duration, values [][]byte) ratelimit.Answer {
	text := keyText(values)
	key := ratelimit.KeyOf(text)
	d, want := b.leases.Take(now, &key)
	if want == 0 {
		return ratelimit.Answer{Decision: d, Known: true}
	}
	p, refused, ok := b.r.enter(now, within)
	if !ok {
		b.leases.Failed(&key, want)
		return refused
	}
	taken, d, f, err := b.r.take(time.Now().Add(p.within), b, text, want)
	b.r.leave(p, f)
	if f != ratelimit.NoFailure {
		b.leases.Failed(&key, want)
		return b.r.fail(f, err)
	}
	return ratelimit.Answer{Decision: b.leases.Told(b.r.now(), &key, want, taken, d)}
}

// keyText tells requests apart in the names of keys: as it is where it is short.
func keyText(values [][]byte) []byte {
	var text []byte
	for i, v := range values {
		if i > 0 {
			text = strconv.AppendInt(append(text, '|'), int64(len(v)), 10)
			text = append(text, ':')
		}
		text = append(text, v...)
	}
	if len(text) > maxKey {
		sum := sha256.Sum256(text)
		return append([]byte("sha256:"), hex.EncodeToString(sum[:])...)
	}
	return text
}

const maxKey = 128

// take takes up to want requests out of a bucket.
func (r *redis) take(deadline time.Time, b *bucket, key []byte, want int64) (taken int64, d ratelimit.Decision, f ratelimit.Failure, err error) {
	args := []string{"EVALSHA", r.script, "1", b.prefix + string(key), b.rate[0], b.rate[1], b.rate[2], strconv.FormatInt(want, 10)}
	v, err := r.do(deadline, args)
	if e := replyError(""); errors.As(err, &e) && strings.HasPrefix(string(e), "NOSCRIPT") {
		args[0], args[1] = "EVAL", takeScript
		v, err = r.do(deadline, args)
	}
	if err != nil {
		return 0, d, failureOf(err), err
	}
	n := v.numbers
	most := int64(ratelimit.MaxCount)
	if len(n) != 4 || n[0] < 0 || n[0] > want || n[1] < 0 || n[1] > most || n[2] < 0 || n[3] < 0 || n[0] == 0 && n[2] == 0 {
		return 0, d, ratelimit.Malformed, fmt.Errorf("%w: %d", errReply, n)
	}
	long := int64(ratelimit.MaxPer/time.Microsecond) * most
	d.Remaining, d.Wait, d.Full = n[1], time.Duration(min(n[2], long)), time.Duration(min(n[3], long))
	d.Wait, d.Full = min(d.Wait, ratelimit.MaxWait/time.Microsecond)*time.Microsecond, min(d.Full, ratelimit.MaxWait/time.Microsecond)*time.Microsecond
	return n[0], d, ratelimit.NoFailure, nil
}

// failureOf says what kind of failure an error is.
func failureOf(err error) ratelimit.Failure {
	var e replyError
	switch {
	case errors.As(err, &e):
		return ratelimit.Refused
	case errors.Is(err, errReply):
		return ratelimit.Malformed
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return ratelimit.Timeout
	}
	return ratelimit.Unreachable
}

// do sends a command and reads its reply. A kept connection that turns out to be
// dead is replaced once, since all of them are when Redis was restarted.
func (r *redis) do(deadline time.Time, args []string) (v redisReply, err error) {
	c := r.pool.get(r.now())
	if c != nil {
		if v, err = c.do(deadline, args); !dead(err) {
			r.done(c, err)
			return v, err
		}
		r.done(c, err)
		r.pool.flush()
	}
	if c, err = r.dial(deadline); err != nil {
		return v, err
	}
	v, err = c.do(deadline, args)
	r.done(c, err)
	return v, err
}

// dead reports whether err says that nobody was there any more.
func dead(err error) bool {
	if err == nil || errors.Is(err, errReply) || errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	var e replyError
	return !errors.As(err, &e)
}

// done keeps a connection for the next question if it can be used again.
func (r *redis) done(c *redisConn, err error) {
	var e replyError
	if err != nil && !errors.As(err, &e) {
		_ = c.conn.Close()
		return
	}
	r.pool.put(c, r.now())
}

// redisConn is a connection.
type redisConn struct {
	conn  net.Conn
	r     *bufio.Reader
	out   []byte
	since time.Duration // unused
}

// dial makes a connection and introduces itself.
func (r *redis) dial(deadline time.Time) (*redisConn, error) {
	d := net.Dialer{Deadline: deadline}
	conn, err := d.Dial("tcp", r.config.Address)
	if err != nil {
		return nil, err
	}
	if r.tls != nil {
		conn = tls.Client(conn, r.tls)
	}
	c := &redisConn{conn: conn, r: bufio.NewReaderSize(conn, maxLine)}
	if err := r.greet(c, deadline); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

func (r *redis) greet(c *redisConn, deadline time.Time) error {
	if r.config.PasswordFile != "" {
		password, err := readPassword(r.config.PasswordFile)
		if err != nil {
			return err
		}
		args := []string{"AUTH", password}
		if r.config.Username != "" {
			args = []string{"AUTH", r.config.Username, password}
		}
		if _, err := c.do(deadline, args); err != nil {
			return fmt.Errorf("AUTH: %w", err)
		}
	}
	if n := r.config.Database; n != 0 {
		if _, err := c.do(deadline, []string{"SELECT", strconv.Itoa(n)}); err != nil {
			return fmt.Errorf("SELECT %d: %w", n, err)
		}
	}
	return nil
}

// readPassword reads a password, less the white space around it. It is read for
// each connection, so that it may change.
func readPassword(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("the password cannot be read: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxString))
	if err != nil {
		return "", fmt.Errorf("the password cannot be read: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (c *redisConn) do(deadline time.Time, args []string) (redisReply, error) {
	if err := c.conn.SetDeadline(deadline); err != nil {
		return redisReply{}, err
	}
	c.out = appendCommand(c.out[:0], args...)
	if _, err := c.conn.Write(c.out); err != nil {
		return redisReply{}, err
	}
	v, err := readReply(c.r)
	if err == nil && c.r.Buffered() > 0 {
		err = fmt.Errorf("%w: more than one answer", errReply)
	}
	return v, err
}
