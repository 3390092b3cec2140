package upstream

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// Bounds of the pause before a Unix socket whose queue is full is called again.
const (
	minUnixPause = time.Millisecond
	maxUnixPause = 20 * time.Millisecond
)

// dialUnix connects to a Unix socket. Where its queue of connections is full the
// kernel does not wait, as it does with TCP, but says so (EAGAIN).
func dialUnix(ctx context.Context, d *net.Dialer, path string) (net.Conn, error) {
	for pause := minUnixPause; ; pause = min(2*pause, maxUnixPause) {
		c, err := d.DialContext(ctx, "unix", path)
		if !errors.Is(err, syscall.EAGAIN) {
			return c, err
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil, &net.OpError{Op: "dial", Net: "unix", Err: context.Cause(ctx)}
		}
	}
}
