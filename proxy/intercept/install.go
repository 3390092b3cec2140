package intercept

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// rules is what is asked of nftables and of routing; a kernel does it.
type rules interface {
	all() ([]Table, error)
	replace(tables, remove []Table) error
	try(Family, Chain) error
	routes(mark uint32, on bool) error
	routed(mark uint32) (bool, error)
}

// Host is one network namespace, in which rules are written and read.
type Host struct {
	ns *Namespace
	k  rules
}

// NewHost returns the host of a namespace; nil is that of the process.
func NewHost(ns *Namespace) *Host { return &Host{ns, kernel{ns}} }

// looksOurs reports whether a table of our name is ours: some of its chains
// are, or it is empty.
func looksOurs(t *Table) bool {
	ours := []string{
		chainPrerouting, chainOutput, chainInput, chainMark, chainDNS, chainInbound, chainToInbound, chainOutbound, chainToOutbound, chainHold, chainIntent,
	}
	for _, c := range t.Chains {
		if slices.Contains(ours[4:], c.Name) {
			return true
		}
	}
	return len(t.Chains) == 0
}

// find returns the tables of the name, and whether all of them are ours.
func find(all []Table, name string) (mine []Table, ours bool) {
	ours = true
	for _, t := range all {
		if t.Name == name {
			mine = append(mine, t)
			ours = ours && looksOurs(&t)
		}
	}
	return mine, ours
}

// Install writes the rules of a complete configuration, in one transaction, in
// the place of those that are there. Twice is as once.
func (h *Host) Install(ctx context.Context, c Config) error {
	all, err := h.k.all()
	if err != nil {
		return h.explain(err)
	}
	there, ours := find(all, c.Table)
	if !ours {
		return fmt.Errorf("there is a table %q that is not ours, and it is left alone: give another name (--table)", c.Table)
	}
	var groups []Group
	for _, path := range c.ProxyCgroups {
		g, err := FindGroup(path)
		if err != nil {
			return err
		}
		groups = append(groups, g)
	}
	if c.BeforeReady == Allow {
		if err := h.awaitListeners(ctx, c); err != nil {
			return err
		}
	}
	if c.Mode == TProxy {
		// Before the rules: a mark that nothing routes would lose packets.
		if err := h.k.routes(c.Mark, true); err != nil {
			return fmt.Errorf("routing packets to this machine: %w", h.explain(err))
		}
	}
	tables := Build(c, groups, Support{Inet: true, Fib: true})
	err = h.k.replace(tables, others(there, tables))
	if err != nil && cannot(err) {
		tables = Build(c, groups, support(h.k))
		if lack := missing(h.k, tables); len(lack) > 0 {
			return fmt.Errorf("this kernel lacks %s: load the module, or choose options that do without", strings.Join(lack, "; "))
		}
		err = h.k.replace(tables, others(there, tables))
	}
	if err != nil {
		return fmt.Errorf("writing the rules (nothing has changed): %w", h.explain(err))
	}
	for _, t := range there {
		// What the table that was there needed and this one does not.
		if old, err := Intent(&t); err == nil && old.Mode == TProxy && (c.Mode != TProxy || old.Mark != c.Mark) {
			return h.k.routes(old.Mark, false)
		}
	}
	return nil
}

// others are those of there that tables does not replace.
func others(there, tables []Table) (list []Table) {
	for _, t := range there {
		if !slices.ContainsFunc(tables, func(n Table) bool { return n.Family == t.Family }) {
			list = append(list, Table{Family: t.Family, Name: t.Name})
		}
	}
	return list
}

// awaitListeners waits until somebody listens on each of the proxy's ports.
func (h *Host) awaitListeners(ctx context.Context, c Config) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		listens, err := h.ns.Listeners()
		if err != nil {
			return err
		}
		lacking := 0
		for _, p := range []uint16{c.OutboundPort, c.InboundPort} {
			if p != 0 && !listens(netip.AddrPortFrom(netip.IPv4Unspecified(), p)) {
				lacking = int(p)
			}
		}
		if lacking == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nobody listens on port %d, and no rule was written, since before-ready is allow: start the proxy first, or choose hold or refuse", lacking)
		case <-tick.C:
		}
	}
}

// Remove takes our table of the name away, and its routes. It says whether
// there was one.
func (h *Host) Remove(name string) (bool, error) {
	all, err := h.k.all()
	if err != nil {
		return false, h.explain(err)
	}
	there, ours := find(all, name)
	if !ours {
		return false, fmt.Errorf("there is a table %q that is not ours, and it is left alone", name)
	}
	if len(there) == 0 {
		return false, nil
	}
	if err := h.k.replace(nil, there); err != nil {
		return false, h.explain(err)
	}
	for _, t := range there {
		// Without an intent the chain of the marks says that there were routes.
		c, err := Intent(&t)
		if err != nil && t.Chain(chainMark) != nil {
			c = Config{Mode: TProxy, Mark: DefaultMark}
		}
		if c.Mode == TProxy {
			return true, h.k.routes(c.Mark, false)
		}
	}
	return true, nil
}

// explain adds to the kernel's error what to do about it.
func (h *Host) explain(err error) error {
	switch {
	case denied(err):
		return fmt.Errorf("%w: this needs the capability CAP_NET_ADMIN in the user namespace that owns the network namespace", err)
	case cannot(err):
		return fmt.Errorf("%w: this kernel may lack nftables (module nf_tables)", err)
	case errors.Is(err, errInterrupted):
		return fmt.Errorf("%w, again and again: somebody else rewrites them", err)
	}
	return err
}
