// Package devca is an embedded certificate authority for development that serves the SPIFFE Workload API on a Unix socket.
package devca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
)

// DefaultTTL is the life of an X509-SVID unless Config says otherwise.
const DefaultTTL = time.Hour

// Config is what a development CA is made from.
type Config struct {
	// TrustDomain is the name of the trust domain, for example example.org.
	TrustDomain string
	// Socket is where the Workload API is served: unix:///abs/path or an absolute path.
	Socket string
	// TTL is the life of the X509-SVIDs; default one hour. They are replaced at half of it.
	TTL time.Duration
	// Entries says who gets which identity. More can be registered at run time.
	Entries []Entry
	// Dir keeps the root between restarts; empty keeps it in memory only.
	Dir string
	// Authority, if set, is used instead of one made from TrustDomain and Dir.
	Authority *Authority
	// Federated holds the roots of other trust domains, handed to every caller.
	Federated map[string][]*x509.Certificate
	// Logger receives issues and refusals; default none.
	Logger *slog.Logger
}

// Server is a SPIFFE Workload API for one machine. It issues X509-SVIDs to the
// processes that its entries match and rotates them at half of their life.
type Server struct {
	ca        *Authority
	path      string
	ttl       time.Duration
	federated map[string][]byte
	log       *slog.Logger
	ready     chan struct{}
	ran       atomic.Bool

	mu      sync.Mutex
	entries []Entry
	changed chan struct{}
}

// New checks the configuration and opens or makes the root. It does not listen
// before Run.
func New(cfg Config) (*Server, error) {
	path, err := socketPath(cfg.Socket)
	if err != nil {
		return nil, err
	}
	if cfg.TTL < 0 {
		return nil, fmt.Errorf("devca: life of certificates %s; use a positive one", cfg.TTL)
	}
	ca := cfg.Authority
	switch {
	case ca != nil && cfg.TrustDomain != "" && cfg.TrustDomain != ca.domain:
		return nil, fmt.Errorf("devca: the authority is of the trust domain %q, not of %q", ca.domain, cfg.TrustDomain)
	case ca != nil:
	case cfg.Dir != "":
		ca, err = OpenAuthority(cfg.TrustDomain, cfg.Dir)
	default:
		ca, err = NewAuthority(cfg.TrustDomain)
	}
	if err != nil {
		return nil, err
	}
	s := &Server{
		ca:        ca,
		path:      path,
		ttl:       cfg.TTL,
		federated: make(map[string][]byte, len(cfg.Federated)),
		log:       cfg.Logger,
		ready:     make(chan struct{}),
		changed:   make(chan struct{}),
	}
	if s.ttl == 0 {
		s.ttl = DefaultTTL
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for domain, roots := range cfg.Federated {
		if domain == ca.domain {
			return nil, fmt.Errorf("devca: %q is the own trust domain; it cannot be federated with itself", domain)
		}
		var der []byte
		for _, r := range roots {
			der = append(der, r.Raw...)
		}
		s.federated["spiffe://"+domain] = der
	}
	var errs []error
	for _, e := range cfg.Entries {
		errs = append(errs, s.Register(e))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// Authority returns the CA, to export its bundle for instance.
func (s *Server) Authority() *Authority { return s.ca }

// Address returns the address for workloads: unix:// and the path.
func (s *Server) Address() string { return "unix://" + s.path }

// Ready returns a channel that is closed once the socket accepts callers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Register adds an entry while the server runs; callers that wait on a stream
// see it at once. Entries of processes that have ended are dropped on the way.
// An entry equal to one that is there already changes nothing.
func (s *Server) Register(e Entry) error {
	switch {
	case e.ID.TrustDomain() != s.ca.domain:
		return fmt.Errorf("devca: entry %q is not of the trust domain %q", e.ID, s.ca.domain)
	case e.ID.Path() == "":
		return fmt.Errorf("devca: entry %q has no path; a workload needs one", e.ID)
	case len(e.Selectors) == 0:
		return fmt.Errorf("devca: entry %q has no selector; it would match every caller", e.ID)
	}
	bound := make([]Selector, len(e.Selectors))
	for i, sel := range e.Selectors {
		var err error
		if bound[i], err = sel.bind(); err != nil {
			return fmt.Errorf("devca: entry %q: %w", e.ID, err)
		}
	}
	e.Selectors = bound
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = slices.DeleteFunc(s.entries, func(old Entry) bool {
		return slices.ContainsFunc(old.Selectors, Selector.dead)
	})
	if slices.ContainsFunc(s.entries, func(old Entry) bool {
		return old.ID == e.ID && old.Hint == e.Hint && slices.Equal(old.Selectors, e.Selectors)
	}) {
		return nil
	}
	s.entries = append(s.entries, e)
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// entitled returns the entries that match c, and a channel that is closed when
// that may have changed.
func (s *Server) entitled(c caller) ([]Entry, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Entry
	for _, e := range s.entries {
		if !slices.ContainsFunc(e.Selectors, func(sel Selector) bool { return !sel.matches(c) }) {
			out = append(out, e)
		}
	}
	return out, s.changed
}

// Run serves the Workload API until ctx ends. It creates the socket's directory
// with mode 0700 if it does not exist. In a directory that does exist every
// process that may enter it can connect; entries decide what it gets. A Server
// can run once.
func (s *Server) Run(ctx context.Context) error {
	if s.ran.Swap(true) {
		return errors.New("devca: the server has run already; make a new one")
	}
	listener, err := listen(s.path)
	if err != nil {
		return err
	}
	g := grpc.NewServer(
		grpc.Creds(peerCredentials{}),
		grpc.UnaryInterceptor(checkUnary),
		grpc.StreamInterceptor(checkStream),
		grpc.WaitForHandlers(true),
		grpc.MaxConcurrentStreams(16),
		grpc.MaxRecvMsgSize(64<<10),
	)
	workload.RegisterSpiffeWorkloadAPIServer(g, &api{server: s})
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	close(s.ready)
	s.log.Info("development CA serves the Workload API", slog.String("address", s.Address()),
		slog.String("trust_domain", s.ca.domain), slog.Duration("ttl", s.ttl))
	select {
	case <-ctx.Done():
		// Streams have no end of their own, so nothing is gained by waiting for them.
		g.Stop()
		<-served
		return ctx.Err()
	case err := <-served:
		g.Stop()
		return fmt.Errorf("devca: %w", err)
	}
}

// maxSocketPath is the room in sockaddr_un (unix(7)) without its final zero.
const maxSocketPath = 107

func socketPath(address string) (string, error) {
	path := strings.TrimPrefix(address, "unix://")
	switch {
	case !filepath.IsAbs(path):
		return "", fmt.Errorf("devca: socket %q; write unix:///absolute/path", address)
	case len(path) > maxSocketPath:
		return "", fmt.Errorf("devca: socket %q has %d bytes; Unix sockets allow %d, use a shorter directory", path, len(path), maxSocketPath)
	}
	return path, nil
}

// listen binds the socket, after removing one that nobody answers any more.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("devca: %w", err)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("devca: %s exists and is not a socket; use another path", path)
		}
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			return nil, fmt.Errorf("devca: %s is served by another process; stop it or use another path", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("devca: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("devca: %w", err)
	}
	// Who may reach the socket is for its directory to say; see Run.
	if err := os.Chmod(path, 0o777); err != nil {
		l.Close()
		return nil, fmt.Errorf("devca: %w", err)
	}
	return l, nil
}
