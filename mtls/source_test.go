package mtls

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestNewMaterialRefuses(t *testing.T) {
	ca, other := newTestCA(t), newTestCA(t)
	own := trust("d.test", ca)
	good := ca.issue(webID, nil)
	swapped := good
	swapped.PrivateKey = ca.issue(webID, nil).PrivateKey
	for _, c := range []struct {
		name    string
		cert    tls.Certificate
		bundles map[string]*x509.CertPool
		says    string
	}{
		{"empty chain", tls.Certificate{PrivateKey: good.PrivateKey}, own, "empty"},
		{"rubbish", tls.Certificate{Certificate: [][]byte{{1, 2}}}, own, "certificate 1"},
		{"foreign key", swapped, own, "does not belong"},
		{"no key", tls.Certificate{Certificate: good.Certificate}, own, "cannot sign"},
		{"no bundle", good, trust("o.test", ca), `no trust bundle for the own trust domain "d.test"`},
		{"bundle of another CA", good, trust("d.test", other), "does not lead to the trust bundle"},
		{"missing intermediate", tls.Certificate{Certificate: ca.intermediate().issue(webID, nil).Certificate[:1]}, own, "cannot sign"},
		{"CA", ca.issue(webID, func(c *x509.Certificate) { c.IsCA = true }), own, "is a CA"},
		{"no identity", ca.issue(webID, func(c *x509.Certificate) { c.URIs = nil }), own, "no URI SAN"},
	} {
		if m, err := NewMaterial(c.cert, c.bundles); err == nil {
			t.Errorf("%s: accepted %v", c.name, m.ID)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %q does not say %q", c.name, err, c.says)
		}
	}
	m, err := NewMaterial(good, own)
	if err != nil {
		t.Fatal(err)
	}
	if m.ID.String() != webID || m.Expired(m.NotAfter) || !m.Expired(m.NotAfter.Add(1)) {
		t.Errorf("material %+v", m)
	}
}

func TestFeed(t *testing.T) {
	ca := newTestCA(t)
	own := trust("d.test", ca)
	f := NewFeed("test")
	if f.Material() != nil || f.Status().Kind != "test" || f.Status().Remaining(time.Now()) != 0 {
		t.Errorf("a new feed is not empty: %+v", f.Status())
	}
	first := f.Changed()
	cert := ca.issue(webID, nil)
	publish(t, f, cert, own)
	select {
	case <-first:
	default:
		t.Error("the first material was not announced")
	}
	if s := f.Status(); s.ID.String() != webID || s.Updates != 1 || !s.NotAfter.Equal(cert.Leaf.NotAfter) || f.Material().Serial != 1 {
		t.Errorf("status %+v, serial %d", s, f.Material().Serial)
	}
	if got, want := f.Status().Remaining(cert.Leaf.NotAfter.Add(-time.Minute)), time.Minute; got != want {
		t.Errorf("remaining %s, want %s", got, want)
	}

	f.Fail(errors.New("gone"))
	if s := f.Status(); s.LastError == nil || s.LastErrorAt.IsZero() || s.Updates != 1 || f.Material() == nil {
		t.Errorf("after a failure: %+v", s)
	}
	second := f.Changed()
	same, _ := NewMaterial(cert, trust("d.test", ca))
	if f.Publish(same) || f.Status().LastError != nil || f.Material().Serial != 1 {
		t.Errorf("an equal material counts as a change, or does not clear the error: %+v", f.Status())
	}
	select {
	case <-second:
		t.Error("an equal material was announced")
	default:
	}
	publish(t, f, cert, trust("d.test", ca, newTestCA(t)))
	if f.Material().Serial != 2 {
		t.Errorf("a changed bundle gives serial %d, want 2", f.Material().Serial)
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newTestCA(t)
		f := NewFeed("test")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f.Fail(errors.New("socket is not there"))
		_, err := Wait(ctx, f)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "socket is not there") {
			t.Errorf("error %v names neither the deadline nor the trouble", err)
		}
		time.AfterFunc(time.Minute, func() { publish(t, f, ca.issue(webID, nil), trust("d.test", ca)) })
		m, err := Wait(t.Context(), f)
		if err != nil || m.ID.String() != webID {
			t.Errorf("got %v, %v", m, err)
		}
	})
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// take returns what was written since it was last called.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

func TestWatchExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newTestCA(t)
		own := trust("d.test", ca)
		start := time.Now()
		hours := func(from, to int) tls.Certificate {
			return ca.issue(webID, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = start.Add(time.Duration(from)*time.Hour), start.Add(time.Duration(to)*time.Hour)
			})
		}
		var log lockedBuffer
		logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "not_after" || a.Key == "last_error_at" {
				return slog.Attr{}
			}
			return a
		}}))
		f := NewFeed("test")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Watch(ctx, f, logger) }()

		expect := func(at time.Duration, want ...string) {
			t.Helper()
			time.Sleep(time.Until(start.Add(at)))
			synctest.Wait()
			got := strings.Split(strings.TrimSuffix(log.take(), "\n"), "\n")
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("at %s the log is\n%s\nwant\n%s", at, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		const about = ` id=spiffe://d.test/web source=test`
		warn := func(rest string) string {
			return `level=WARN msg="own certificate nears its end and has not been renewed"` + about + rest
		}
		const ended = `level=ERROR msg="own certificate has expired; peers refuse new connections until it is renewed"` + about

		expect(time.Hour, "")
		publish(t, f, hours(0, 3), own)
		expect(2*time.Hour-time.Second, "")
		expect(2*time.Hour, warn(" remaining=1h0m0s"))
		// A renewal in time silences the rest and begins anew.
		publish(t, f, hours(2, 5), own)
		expect(4*time.Hour-time.Second, "")
		expect(4*time.Hour, warn(" remaining=1h0m0s"))
		f.Fail(errors.New("gone"))
		expect(4*time.Hour+42*time.Minute, warn(" last_error=gone remaining=18m0s"))
		expect(6*time.Hour, ended+" last_error=gone")
		// A certificate that is late already is told of once, by the latest threshold.
		publish(t, f, hours(0, 7), own)
		expect(6*time.Hour+time.Second, warn(" remaining=1h0m0s"))
		publish(t, f, hours(1, 6), own)
		expect(20*time.Hour, ended)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v", err)
		}
	})
}
