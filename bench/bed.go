package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/load"
	"github.com/outrigger-mesh/outrigger/bench/peers"
	"github.com/outrigger-mesh/outrigger/bench/procstat"
	"github.com/outrigger-mesh/outrigger/bench/report"
)

// direct is the name of the connection without a proxy.
const direct = "direct"

// bed is one subject set up for a scenario: its processes and where to send
// requests. The direct connection is a bed without processes.
type bed struct {
	name  string
	entry netip.AddrPort
	procs []*process
	// admins are the admin listeners of the proxies; profiled says that they
	// have a profiler.
	admins   []netip.AddrPort
	profiled bool
	// startRSS is the resident memory in kB of one freshly started process
	// tree, the larger of the two in a pair.
	startRSS int64
}

// setUp starts a subject's proxies, each in front of the one before, and
// waits until a request goes through all of them. A chain that ends with an
// inbound sidecar is entered with TLS and is ready when its port is open.
func (r *runner) setUp(ctx context.Context, s subject, c *course, at netip.AddrPort) (*bed, error) {
	b := &bed{name: s.name(), entry: at, profiled: s.profiled()}
	for i, role := range c.chain {
		endpoints := []netip.AddrPort{b.entry}
		if i == 0 {
			endpoints = upstreams(at, c.endpoints)
		}
		if err := r.addProxy(ctx, s, c, role, endpoints, b); err != nil {
			b.tearDown()
			return nil, fmt.Errorf("%s as %s: %w", s.name(), role, err)
		}
	}
	if err := r.settle(ctx, b); err != nil {
		b.tearDown()
		return nil, fmt.Errorf("%s: %w", s.name(), err)
	}
	return b, nil
}

func (r *runner) addProxy(ctx context.Context, s subject, c *course, role peers.Role, endpoints []netip.AddrPort, b *bed) error {
	r.started++
	p := peers.Params{
		Role:      role,
		Protocol:  c.protocol,
		HopH2:     s.hopH2(),
		Cores:     c.cores,
		Dir:       filepath.Join(r.dir, fmt.Sprintf("%03d-%s-%s", r.started, s.name(), role)),
		Upstreams: endpoints,
		AccessLog: r.o.accessLog,
		Profile:   r.o.profile,
		Certs:     r.certs.web,
	}
	if c.guarded {
		p.Guards = "all"
		if s.name() == report.Bare {
			p.Guards = "none"
		}
	}
	if role == peers.Inbound {
		p.Certs = r.certs.origin
	}
	if err := os.Mkdir(p.Dir, 0o700); err != nil {
		return err
	}
	for _, a := range []*netip.AddrPort{&p.Listen, &p.Admin} {
		port, err := r.ports.free()
		if err != nil {
			return err
		}
		*a = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
	}
	argv, err := s.command(p)
	if err != nil {
		return err
	}
	proc, err := r.spawn.start(s.name(), p.Dir, argv, r.proxyCores(c.cores)...)
	if err != nil {
		return err
	}
	b.procs = append(b.procs, proc)
	b.entry = p.Listen
	b.admins = append(b.admins, p.Admin)
	if path := s.ready(); path != "" {
		if err := awaitAdmin(ctx, "http://"+p.Admin.String()+path, b.alive); err != nil {
			return fmt.Errorf("%w\n%s", err, tail(proc.log))
		}
	}
	first := c.config(level{1, 1})
	if role == peers.Inbound {
		if first.TLS, err = tlsConfig(r.certs.web); err != nil {
			return err
		}
		if c.protocol != peers.HTTP {
			// The load speaks these in cleartext only: the whole chain is
			// tried through the outbound sidecar.
			return poll(ctx, b.alive, func() error { return knock(ctx, b.entry, first.TLS) })
		}
	}
	return poll(ctx, b.alive, func() error { return r.once(ctx, b.entry, first, proc) })
}

// knock makes one TLS handshake with an inbound sidecar.
func knock(ctx context.Context, at netip.AddrPort, cfg *tls.Config) error {
	cfg = cfg.Clone()
	cfg.NextProtos = nil // any protocol will do
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Second}, Config: cfg}
	conn, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// once makes load for a moment and wants something to have come back.
func (r *runner) once(ctx context.Context, at netip.AddrPort, cfg load.Config, proc *process) error {
	cfg.Addr, cfg.Duration = at, 20*time.Millisecond
	res, err := load.Run(ctx, cfg)
	return firstTrouble(res, err, proc)
}

func firstTrouble(res *load.Result, err error, proc *process) error {
	switch {
	case err != nil:
		return fmt.Errorf("%w; its last words:\n%s", err, tail(proc.log))
	case res.Requests == 0 && res.Bytes == 0:
		return fmt.Errorf("no request went through: %s; its last words:\n%s", res.FirstError, tail(proc.log))
	}
	return nil
}

// settle lets a freshly started subject come to rest and reads its memory.
func (r *runner) settle(ctx context.Context, b *bed) error {
	if err := pause(ctx, r.o.sliceTime()/2); err != nil {
		return err
	}
	for _, p := range b.procs {
		tree, err := procstat.Tree(p.pid())
		if err != nil {
			return err
		}
		rss, err := procstat.TreeRSS(tree)
		if err != nil {
			return err
		}
		b.startRSS = max(b.startRSS, rss>>10)
	}
	return nil
}

// alive is the error of the first process that has ended.
func (b *bed) alive() error {
	for _, p := range b.procs {
		if err := p.ended(); err != nil {
			return err
		}
	}
	return nil
}

// pids are all processes of the subject.
func (b *bed) pids() ([]int, error) {
	if len(b.procs) == 0 {
		return nil, nil
	}
	var roots []int
	for _, p := range b.procs {
		roots = append(roots, p.pid())
	}
	tree, err := procstat.Tree(roots...)
	if err == nil && len(tree) < len(roots) {
		err = errors.Join(b.alive(), fmt.Errorf("%s: a process is gone", b.name))
	}
	return tree, err
}

// tearDown ends all processes, those next to the client first.
func (b *bed) tearDown() {
	for i := len(b.procs) - 1; i >= 0; i-- {
		b.procs[i].stop()
	}
	b.procs = nil
}
