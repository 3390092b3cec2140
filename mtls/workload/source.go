// Package workload keeps an X509-SVID and the trust bundles fresh from the SPIFFE Workload API.
package workload

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/mtls"
)

// Config says where the Workload API is and which identity to take from it.
type Config struct {
	// Socket is the address of the Workload API: unix:///abs/path or
	// tcp://IP:port. Empty takes the environment's SPIFFE_ENDPOINT_SOCKET.
	Socket string
	// StartupTimeout is how long Run waits for the first identity; default 30 s,
	// negative for ever.
	StartupTimeout time.Duration
	// Hint chooses the SVID with this hint when the agent gives several. Empty
	// takes the first, as the SPIFFE Workload API, section 5.3, defines. A hint
	// that no SVID has is an error, so that no other identity is used instead.
	Hint string
	// Logger receives rotations and troubles; default none.
	Logger *slog.Logger
}

const (
	defaultStartupTimeout = 30 * time.Second
	backoffBase           = 100 * time.Millisecond
	backoffMax            = 5 * time.Second
)

// Source is a mtls.Source over the SPIFFE Workload API. When the agent is gone
// it keeps the last material and reconnects for ever.
type Source struct {
	feed *mtls.Feed
	cfg  Config
	log  *slog.Logger
}

var _ mtls.Source = (*Source)(nil)

// New returns a source that connects nowhere before Run.
func New(cfg Config) *Source {
	if cfg.StartupTimeout == 0 {
		cfg.StartupTimeout = defaultStartupTimeout
	}
	s := &Source{feed: mtls.NewFeed("workload_api"), cfg: cfg, log: cfg.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Material implements mtls.Source.
func (s *Source) Material() *mtls.Material { return s.feed.Material() }

// Changed implements mtls.Source.
func (s *Source) Changed() <-chan struct{} { return s.feed.Changed() }

// Status implements mtls.Source.
func (s *Source) Status() mtls.Status { return s.feed.Status() }

// Run watches the Workload API until ctx ends. It fails earlier only when the
// address cannot be one, or when no identity has come within the start-up timeout.
func (s *Source) Run(ctx context.Context) error {
	address := s.cfg.Socket
	if address == "" {
		var ok bool
		if address, ok = workloadapi.GetDefaultAddress(); !ok {
			return fmt.Errorf("workload api: no socket is configured and the environment has no %s", workloadapi.SocketEnv)
		}
	}
	client, err := workloadapi.New(ctx,
		workloadapi.WithAddr(address),
		workloadapi.WithBackoffStrategy(strategy{}),
		workloadapi.WithDialOptions(grpc.WithConnectParams(grpc.ConnectParams{
			// The connection's own backoff, below that of the watch. gRPC's default
			// grows to two minutes, which is long for an agent on the same machine.
			Backoff:           backoff.Config{BaseDelay: backoffBase, Multiplier: 2, Jitter: 0.2, MaxDelay: backoffMax},
			MinConnectTimeout: backoffMax,
		})))
	if err != nil {
		return fmt.Errorf("workload api: %s: %w", address, err)
	}
	defer client.Close()

	watchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.watch(watchCtx, client, address)
	}()
	defer func() {
		cancel()
		<-done
	}()

	if s.cfg.StartupTimeout > 0 {
		start, stop := context.WithTimeout(ctx, s.cfg.StartupTimeout)
		_, err := mtls.Wait(start, s.feed)
		stop()
		if err != nil && ctx.Err() == nil {
			trouble := s.Status().LastError
			if trouble == nil {
				trouble = errors.New("the agent does not answer")
			}
			return fmt.Errorf("workload api: no identity from %s within %s: %w; check that the SPIFFE agent runs, that its socket is there, and that this process has an entry",
				address, s.cfg.StartupTimeout, trouble)
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// watch keeps the stream open until ctx ends. The client's own loop gives up on
// some answers (Canceled, InvalidArgument); an agent that is being replaced may
// give any, so the loop is begun again.
func (s *Source) watch(ctx context.Context, client *workloadapi.Client, address string) {
	w := &watcher{source: s, address: address}
	retry := strategy{}.NewBackoff()
	for ctx.Err() == nil {
		// Every error reaches the watcher first.
		_ = client.WatchX509Context(ctx, w)
		select {
		case <-ctx.Done():
		case <-time.After(retry.Next()):
		}
	}
}

// watcher implements workloadapi.X509ContextWatcher. The client calls it from
// one goroutine.
type watcher struct {
	source  *Source
	address string
}

// OnX509ContextUpdate implements workloadapi.X509ContextWatcher.
func (w *watcher) OnX509ContextUpdate(x *workloadapi.X509Context) {
	s := w.source
	m, err := s.material(x)
	if err != nil {
		w.fail(err)
		return
	}
	if recovered := s.Status().LastError != nil; s.feed.Publish(m) || recovered {
		s.log.Info("identity from the Workload API", slog.String("id", m.ID.String()),
			slog.Time("not_after", m.NotAfter), slog.Int("trust_domains", len(m.Bundles)))
	}
}

// OnX509ContextWatchError implements workloadapi.X509ContextWatcher.
func (w *watcher) OnX509ContextWatchError(err error) { w.fail(err) }

func (w *watcher) fail(err error) {
	s := w.source
	if errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled {
		return // the source is being stopped
	}
	err = fmt.Errorf("%s: %w", w.address, err)
	before := s.Status().LastError
	s.feed.Fail(err)
	// The same trouble at every attempt is told once.
	if before == nil || before.Error() != err.Error() {
		s.log.Warn("the Workload API gives no identity; the last one stays", slog.Any("error", err))
	}
}

func (s *Source) material(x *workloadapi.X509Context) (*mtls.Material, error) {
	svid, err := s.choose(x.SVIDs)
	if err != nil {
		return nil, err
	}
	cert := tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	bundles := make(map[string]*x509.CertPool, x.Bundles.Len())
	for _, b := range x.Bundles.Bundles() {
		pool := x509.NewCertPool()
		for _, root := range b.X509Authorities() {
			pool.AddCert(root)
		}
		bundles[b.TrustDomain().Name()] = pool
	}
	return mtls.NewMaterial(cert, bundles)
}

func (s *Source) choose(svids []*x509svid.SVID) (*x509svid.SVID, error) {
	if len(svids) == 0 {
		return nil, errors.New("the answer has no X509-SVID")
	}
	if s.cfg.Hint == "" {
		return svids[0], nil
	}
	hints := make([]string, 0, len(svids))
	for _, svid := range svids {
		if svid.Hint == s.cfg.Hint {
			return svid, nil
		}
		hints = append(hints, svid.Hint)
	}
	return nil, fmt.Errorf("no X509-SVID has the hint %q; there are %q", s.cfg.Hint, hints)
}

// strategy is exponential backoff with jitter over the upper half, so that a
// machine's sidecars do not all come back to a restarted agent at once.
type strategy struct{}

// NewBackoff implements workloadapi.BackoffStrategy.
func (strategy) NewBackoff() workloadapi.Backoff { return &exponential{} }

type exponential struct{ next time.Duration }

// Next implements workloadapi.Backoff.
func (b *exponential) Next() time.Duration {
	b.next = min(max(2*b.next, backoffBase), backoffMax)
	return b.next/2 + rand.N(b.next/2+1)
}

// Reset implements workloadapi.Backoff.
func (b *exponential) Reset() { b.next = 0 }
