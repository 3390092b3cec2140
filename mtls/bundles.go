package mtls

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Bundles is a Source that adds the roots of other trust domains, from files, to the material of another source. What
// that one says of a trust domain comes first. A file that cannot be used is reported, and what it held last stays.
type Bundles struct {
	src     Source
	feed    *Feed
	log     *slog.Logger
	paths   []string
	domains []string // of paths

	last  [][]byte
	pools []*x509.CertPool // nil of a domain whose file was never good
}

// WithBundles returns a source over src. It reads nothing before Run, which runs src too.
func WithBundles(src Source, files map[string]string, logger *slog.Logger) *Bundles {
	b := &Bundles{src: src, feed: NewFeed(src.Status().Kind), log: logger, domains: slices.Sorted(maps.Keys(files))}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	for _, d := range b.domains {
		b.paths = append(b.paths, files[d])
	}
	b.last, b.pools = make([][]byte, len(b.paths)), make([]*x509.CertPool, len(b.paths))
	return b
}

// Material implements Source.
func (b *Bundles) Material() *Material { return b.feed.Material() }

// Changed implements Source.
func (b *Bundles) Changed() <-chan struct{} { return b.feed.Changed() }

// Status implements Source: the trouble is that of the source below, else that of the files.
func (b *Bundles) Status() Status {
	s, below := b.feed.Status(), b.src.Status()
	if below.LastError != nil {
		s.LastError, s.LastErrorAt = below.LastError, below.LastErrorAt
	}
	return s
}

// Run implements Source.
func (b *Bundles) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- b.src.Run(ctx) }()
	defer cancel()

	watch, err := newFileWatch(b.paths)
	if err != nil {
		b.log.Warn("file notification is not available; polling instead", slog.Any("error", err), slog.Duration("every", defaultPoll))
	}
	defer watch.close()
	next := time.NewTimer(0)
	defer next.Stop()
	soon := false
	for {
		changed := b.src.Changed()
		b.publish()
		select {
		case err := <-done:
			return err
		case <-changed:
			continue
		case <-next.C:
			soon = false
			// Links may lead elsewhere now: watch first and read then, so that nothing is missed in between.
			watch.follow()
			b.read()
			next.Reset(defaultPoll)
			continue
		case <-watch.events():
		case err := <-watch.errors():
			b.log.Warn("file notification failed; reading the files again", slog.Any("error", err))
		}
		if !soon {
			soon = true
			next.Reset(settle)
		}
	}
}

// read takes the files that have changed.
func (b *Bundles) read() {
	var trouble error
	for i, path := range b.paths {
		content, err := readBounded(path)
		if err == nil {
			if b.pools[i] != nil && bytes.Equal(content, b.last[i]) {
				continue
			}
			var pool *x509.CertPool
			if pool, err = parseBundle(content); err == nil {
				b.last[i], b.pools[i] = content, pool
				b.log.Info("roots of another trust domain", slog.String("trust_domain", b.domains[i]), slog.String("file", path))
				continue
			}
		}
		if trouble == nil {
			trouble = fmt.Errorf("roots of %s: %s: %w", b.domains[i], path, err)
		}
	}
	before := b.feed.Status().LastError
	switch {
	case trouble != nil:
		b.feed.Fail(trouble)
		if before == nil || before.Error() != trouble.Error() {
			b.log.Warn("the roots of another trust domain are not usable; the last good ones stay", slog.Any("error", trouble))
		}
	case before != nil:
		b.feed.Fail(nil)
	}
}

// publish puts together what there is.
func (b *Bundles) publish() {
	m := b.src.Material()
	if m == nil {
		return
	}
	all := maps.Clone(m.Bundles)
	for i, d := range b.domains {
		if all[d] == nil && b.pools[i] != nil {
			all[d] = b.pools[i]
		}
	}
	if now := b.feed.Material(); now != nil && now.equal(&Material{Cert: m.Cert, Bundles: all}) {
		return // Publish would take the trouble with the files for over
	}
	trouble := b.feed.Status()
	next, err := NewMaterial(m.Cert, all)
	if err != nil {
		b.feed.Fail(err)
		return
	}
	b.feed.Publish(next)
	if trouble.LastError != nil {
		b.feed.Fail(trouble.LastError)
	}
}
