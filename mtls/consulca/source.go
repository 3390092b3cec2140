package consulca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
)

// Options are what a source needs beside its configuration.
type Options struct {
	// Service is the own one, where the configuration names none.
	Service string
	// TrustDomain, if set, is the one that Consul must have.
	TrustDomain string
	// StartupTimeout is how long Run waits for the first identity; default 30 s, negative for ever.
	StartupTimeout time.Duration
	// Client is Consul's HTTP API. Required.
	Client Client
	// Logger receives rotations and troubles; default none.
	Logger *slog.Logger
}

const (
	defaultStartupTimeout = 30 * time.Second

	// After a failure the next attempt waits: first so long, then twice as long up to pauseLong, and up to
	// pauseShort while there is no certificate, or one with little life left.
	pauseFirst = 200 * time.Millisecond
	pauseShort = 5 * time.Second
	pauseLong  = 30 * time.Second

	// rootsJitter is the span in which the proxies of a mesh ask for new certificates when the root changes; Consul's
	// agents take as long (caChangeJitterWindow).
	rootsJitter = 30 * time.Second
	// leafTerm is how long the HTTP way is used before gRPC is tried again.
	leafTerm = 5 * time.Minute
	// grpcAway is how long gRPC may have been away before the HTTP way is taken while there is a certificate.
	grpcAway = time.Minute
	// lookAgain is how often a due time is compared with the wall clock, which may jump where timers do not.
	lookAgain = time.Minute
)

// Source is a mtls.Source over Consul's CA. While Consul is away it keeps the last material.
type Source struct {
	feed   *mtls.Feed
	cfg    Config
	opts   Options
	log    *slog.Logger
	jitter time.Duration // rootsJitter, but in tests

	// What follows belongs to the goroutine of follow.
	place  place
	own    *leaf
	next   *leaf // own as soon as roots are known that it leads to
	roots  *roots
	saved  *leaf
	savedR *roots
	told   Method
	lately time.Time // when gRPC last worked
	signer *signer
	broken error // why there is no signer
}

var _ mtls.Source = (*Source)(nil)

// New returns a source that connects nowhere before Run.
func New(cfg Config, o Options) *Source {
	if o.StartupTimeout == 0 {
		o.StartupTimeout = defaultStartupTimeout
	}
	s := &Source{feed: mtls.NewFeed("consul"), cfg: cfg, opts: o, log: o.Logger, jitter: rootsJitter}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.place = place{
		service:    first(cfg.Service, o.Service),
		datacenter: cfg.Datacenter,
		namespace:  namespace(&cfg),
		partition:  partition(&cfg),
	}
	if cfg.Method == MethodLeaf {
		return s
	}
	address := first(cfg.GRPCAddress, os.Getenv("CONSUL_GRPC_ADDR"), beside(o.Client.Address()))
	if address == "" {
		s.broken = errors.New("the gRPC address of Consul is not known; write identity.consul.grpc_address, or set CONSUL_GRPC_ADDR")
		return s
	}
	// What the environment says of authorities is for ports that speak TLS; only a file that is written for this one
	// says that it does.
	explicit := first(cfg.GRPCCAFile, os.Getenv("CONSUL_GRPC_CACERT"))
	ca := explicit
	if t, err := parseTarget(address, explicit != ""); err == nil && t.tls {
		ca = first(explicit, os.Getenv("CONSUL_CACERT"))
	} else if err == nil {
		ca = ""
	}
	s.signer, s.broken = newSigner(address, ca, first(cfg.GRPCServerName, os.Getenv("CONSUL_TLS_SERVER_NAME")), o.Client.Token)
	return s
}

// first is the first of values that is not empty.
func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func namespace(c *Config) string { return first(c.Namespace, os.Getenv("CONSUL_NAMESPACE"), "default") }

func partition(c *Config) string { return first(c.Partition, os.Getenv("CONSUL_PARTITION"), "default") }

// Material implements mtls.Source.
func (s *Source) Material() *mtls.Material { return s.feed.Material() }

// Changed implements mtls.Source.
func (s *Source) Changed() <-chan struct{} { return s.feed.Changed() }

// Status implements mtls.Source.
func (s *Source) Status() mtls.Status { return s.feed.Status() }

// Run keeps the identity fresh until ctx ends. It fails earlier only when no identity has come within the start-up
// timeout, or when the configuration can never give one.
func (s *Source) Run(ctx context.Context) error {
	defer s.opts.Client.Close()
	if s.signer != nil {
		defer s.signer.close()
	}
	if s.broken != nil && s.cfg.Method == MethodSign {
		return s.broken
	}
	s.restore()
	run, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.follow(run)
	}()
	defer func() {
		cancel()
		<-done
	}()
	if s.opts.StartupTimeout > 0 {
		start, stop := context.WithTimeout(ctx, s.opts.StartupTimeout)
		_, err := mtls.Wait(start, s.feed)
		stop()
		if err != nil && ctx.Err() == nil {
			trouble := s.Status().LastError
			if trouble == nil {
				trouble = errors.New("consul does not answer")
			}
			return fmt.Errorf("no identity from Consul within %s: %w", s.opts.StartupTimeout, trouble)
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// publish makes of leaf and roots what is used from now on.
func (s *Source) publish() error {
	l := s.own
	if s.next != nil {
		if got, want := s.next.uri(), s.place.id(s.roots.domain); got != want {
			s.next = nil
			return fmt.Errorf("consul gave a certificate of %q where %s was asked for; check service, datacenter, namespace and partition under identity.consul", got, want)
		}
		if !s.next.leadsTo(s.roots.pool) {
			return errors.New("the new certificate leads to none of the roots that Consul has told of yet")
		}
		l = s.next
	}
	if l == nil {
		return nil
	}
	m, err := s.material(l)
	if err != nil {
		return err
	}
	if s.next != nil {
		s.own, s.next = s.next, nil
		s.own.due = renewal(m.NotBefore, m.NotAfter, rand.Float64())
	}
	if s.feed.Publish(m) {
		s.log.Info("identity from Consul's CA", slog.String("id", m.ID.String()), slog.Time("not_after", m.NotAfter),
			slog.Time("renewal", s.own.due), slog.Int("roots", len(s.roots.pems)), slog.String("method", string(s.own.from)))
	}
	if s.cfg.Snapshot != "" && (s.saved != s.own || s.savedR != s.roots) {
		if err := save(s.cfg.Snapshot, s.own, s.roots); err != nil {
			s.log.Warn("the identity could not be kept on disk; a start without Consul would have none", slog.Any("error", err))
		}
		s.saved, s.savedR = s.own, s.roots // a disk that is full is tried again with the next change
	}
	return nil
}

func (s *Source) material(l *leaf) (*mtls.Material, error) {
	return mtls.NewMaterial(l.cert, map[string]*x509.CertPool{s.roots.domain: s.roots.pool})
}

func (s *Source) checkDomain() error {
	if want := s.opts.TrustDomain; want != "" && want != s.roots.domain {
		return fmt.Errorf("consul's trust domain is %q, but identity.trust_domain is %q", s.roots.domain, want)
	}
	return nil
}

// restore begins with what is on disk, if it is good.
func (s *Source) restore() {
	if s.cfg.Snapshot == "" {
		return
	}
	l, r, err := restore(s.cfg.Snapshot)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err == nil:
		err = s.begin(l, r)
	}
	if err != nil {
		s.log.Warn("the identity on disk is not used", slog.Any("error", err))
	}
}

// begin takes leaf and roots of an earlier run.
func (s *Source) begin(l *leaf, r *roots) error {
	p := s.place
	if p.datacenter == "" {
		if p.datacenter = datacenterOf(l.uri()); p.datacenter == "" {
			return fmt.Errorf("%s: its identity %q is not one that Consul gives a service", s.cfg.Snapshot, l.uri())
		}
	}
	if want := p.id(r.domain); l.uri() != want {
		return fmt.Errorf("%s: it is of %s, not of %s", s.cfg.Snapshot, l.uri(), want)
	}
	if now := time.Now(); now.After(l.cert.Leaf.NotAfter) {
		return fmt.Errorf("%s: its certificate has expired at %s", s.cfg.Snapshot, l.cert.Leaf.NotAfter.Format(time.RFC3339))
	}
	s.roots = r
	if err := s.checkDomain(); err != nil {
		s.roots = nil
		return err
	}
	m, err := s.material(l)
	if err != nil {
		s.roots = nil
		return fmt.Errorf("%s: %w", s.cfg.Snapshot, err)
	}
	l.due = renewal(m.NotBefore, m.NotAfter, rand.Float64())
	s.own, s.saved, s.savedR, s.place = l, l, r, p
	s.log.Info("identity from disk until Consul answers", slog.String("id", m.ID.String()), slog.Time("not_after", m.NotAfter), slog.String("file", s.cfg.Snapshot))
	s.feed.Publish(m)
	return nil
}

// say tells by which way identities come, when it is another than before.
func (s *Source) say(m, before Method) Method {
	switch {
	case m == before:
	case m == MethodSign:
		s.log.Info("identity: certificates are signed by Consul over gRPC, for keys made here", slog.String("method", string(m)), slog.String("grpc", s.signer.where))
	default:
		s.log.Info("identity: key and certificate come from Consul's agent over HTTP", slog.String("method", string(m)), slog.String("http", s.opts.Client.Address()))
	}
	return m
}

func (s *Source) fail(err error) {
	before := s.Status().LastError
	s.feed.Fail(err)
	// The same trouble at every attempt is told once.
	if before == nil || before.Error() != err.Error() {
		s.log.Warn("Consul's CA gives no identity; the last one stays", slog.Any("error", err))
	}
}
