package mtls

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"
)

// FilesConfig names the PEM files of an identity kept by something else, such as
// cert-manager, a Kubernetes secret or spiffe-helper.
type FilesConfig struct {
	// CertFile holds the X509-SVID, followed by its intermediates.
	CertFile string
	// KeyFile holds the private key (PKCS #8, SEC 1 or PKCS #1).
	KeyFile string
	// BundleFile holds the roots of the own trust domain.
	BundleFile string
	// Bundles maps each further trust domain to the file with its roots.
	Bundles map[string]string
	// TrustDomain, if set, is the one that the certificate must belong to.
	TrustDomain string
	// StartupTimeout is how long Run waits for the first good set; default 30 s,
	// negative for ever.
	StartupTimeout time.Duration
	// Poll is how often the files are read without being told to, as a net under
	// file notification; default 30 s.
	Poll time.Duration
	// Logger receives reloads and troubles; default none.
	Logger *slog.Logger
}

const (
	defaultStartupTimeout = 30 * time.Second
	defaultPoll           = 30 * time.Second
	// settle is how long after a change the files are read, so that a rewrite of
	// several of them is mostly seen as one.
	settle = 50 * time.Millisecond
	// maxFile bounds each file read.
	maxFile = 4 << 20
)

// Files is a Source that reads the identity from files and follows their changes:
// in place, by rename, and by a symbolic link that is turned to another
// directory, as Kubernetes does. A set that is incomplete, half-written or does
// not fit together is reported and the last good one stays.
type Files struct {
	feed *Feed
	cfg  FilesConfig
	log  *slog.Logger
	// paths are certificate, key, own bundle, then the bundles of domains in order.
	paths   []string
	domains []string
	// last is what the files held when they were last published.
	last [][]byte
}

// NewFiles returns a source that reads nothing before Run.
func NewFiles(cfg FilesConfig) *Files {
	if cfg.StartupTimeout == 0 {
		cfg.StartupTimeout = defaultStartupTimeout
	}
	if cfg.Poll <= 0 {
		cfg.Poll = defaultPoll
	}
	f := &Files{feed: NewFeed("files"), cfg: cfg, log: cfg.Logger}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.paths = []string{cfg.CertFile, cfg.KeyFile, cfg.BundleFile}
	f.domains = slices.Sorted(maps.Keys(cfg.Bundles))
	for _, d := range f.domains {
		f.paths = append(f.paths, cfg.Bundles[d])
	}
	return f
}

// Material implements Source.
func (f *Files) Material() *Material { return f.feed.Material() }

// Changed implements Source.
func (f *Files) Changed() <-chan struct{} { return f.feed.Changed() }

// Status implements Source.
func (f *Files) Status() Status { return f.feed.Status() }

// Run reads the files now and after every change until ctx ends. It gives up
// only when there is no good set within the start-up timeout.
func (f *Files) Run(ctx context.Context) error {
	watch, err := newFileWatch(f.paths)
	if err != nil {
		// Without notification (too many watches, say) the poll still works.
		f.log.Warn("file notification is not available; polling instead", slog.Any("error", err), slog.Duration("every", f.cfg.Poll))
	}
	defer watch.close()

	var startup <-chan time.Time
	if f.cfg.StartupTimeout > 0 {
		t := time.NewTimer(f.cfg.StartupTimeout)
		defer t.Stop()
		startup = t.C
	}
	retry := settle
	read := func() time.Duration {
		// Links may lead elsewhere now: watch first and read then, so that
		// nothing is missed in between.
		watch.follow()
		if f.reload() != nil {
			retry = min(2*retry, f.cfg.Poll)
			return retry
		}
		retry = settle
		return f.cfg.Poll
	}
	next := time.NewTimer(read())
	defer next.Stop()
	// soon is set once a change has been seen, until it has been read: a busy
	// directory must not put the reading off for ever.
	soon := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-startup:
			startup = nil
			if f.Material() == nil {
				return fmt.Errorf("mtls: no identity from files within %s: %w", f.cfg.StartupTimeout, f.Status().LastError)
			}
			continue
		case <-next.C:
			soon = false
			next.Reset(read())
			continue
		case <-watch.events():
		case err := <-watch.errors():
			f.log.Warn("file notification failed; reading the files again", slog.Any("error", err))
		}
		if !soon {
			soon = true
			next.Reset(settle)
		}
	}
}

// reload reads the files and publishes them if they are a new set.
func (f *Files) reload() error {
	m, contents, err := f.load()
	if err != nil {
		before := f.Status().LastError
		f.feed.Fail(err)
		// The same trouble is not told twice.
		if before == nil || before.Error() != err.Error() {
			f.log.Warn("identity files are not usable; the last good set stays", slog.Any("error", err))
		}
		return err
	}
	f.last = contents
	if f.feed.Publish(m) {
		f.log.Info("identity loaded from files", slog.String("id", m.ID.String()), slog.Time("not_after", m.NotAfter))
	}
	return nil
}

// load returns the set in the files; the current material when they still hold it.
func (f *Files) load() (*Material, [][]byte, error) {
	contents := make([][]byte, len(f.paths))
	var errs []error
	for i, p := range f.paths {
		b, err := readBounded(p)
		if err != nil {
			errs = append(errs, err)
		}
		contents[i] = b
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	if f.last != nil && slices.EqualFunc(f.last, contents, bytes.Equal) {
		return f.Material(), contents, nil
	}
	pair := f.cfg.CertFile + " and " + f.cfg.KeyFile
	cert, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", pair, err)
	}
	id, err := svidID(cert.Leaf)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.cfg.CertFile, err)
	}
	own := id.TrustDomain()
	if f.cfg.TrustDomain != "" && f.cfg.TrustDomain != own {
		return nil, nil, fmt.Errorf("%s: certificate of %s is not of the trust domain %q", f.cfg.CertFile, id, f.cfg.TrustDomain)
	}
	bundles := make(map[string]*x509.CertPool, 1+len(f.domains))
	for i, domain := range append([]string{own}, f.domains...) {
		if i > 0 && domain == own {
			return nil, nil, fmt.Errorf("%s: %q is the own trust domain; its roots belong in %s", f.paths[2+i], own, f.cfg.BundleFile)
		}
		if bundles[domain], err = parseBundle(contents[2+i]); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.paths[2+i], err)
		}
	}
	m, err := NewMaterial(cert, bundles)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", pair, err)
	}
	return m, contents, nil
}

// parseBundle reads the roots of one trust domain. Other PEM blocks, a block
// cut short and an empty file are mistakes: a bundle that is just being
// written must not pass for a smaller one.
func parseBundle(b []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	all, n := b, 0
	for {
		var block *pem.Block
		block, b = pem.Decode(b)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("trust bundle: PEM block %q; only CERTIFICATE is allowed", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("trust bundle: certificate %d: %w", n+1, err)
		}
		if !cert.IsCA {
			return nil, fmt.Errorf("trust bundle: certificate %d (%s) is not a CA", n+1, cert.Subject)
		}
		pool.AddCert(cert)
		n++
	}
	// pem.Decode silently skips a block that it cannot read.
	if begun := bytes.Count(all, []byte("-----BEGIN ")); begun != n {
		return nil, fmt.Errorf("trust bundle: %d of %d PEM blocks cannot be read", begun-n, begun)
	}
	if n == 0 {
		return nil, errors.New("trust bundle has no certificate")
	}
	return pool, nil
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return b, nil
}
