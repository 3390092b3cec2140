package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/outrigger-mesh/outrigger/discovery"
)

// maxCatalog bounds the file: about 50,000 endpoints.
const maxCatalog = 8 << 20

// catalog is the file as it is written.
type catalog struct {
	Services map[string]entry `yaml:"services"`
}

type entry struct {
	Protocol   string     `yaml:"protocol"`
	Identities []string   `yaml:"identities"`
	Endpoints  []endpoint `yaml:"endpoints"`
}

type endpoint struct {
	Address  string            `yaml:"address"`
	Weight   *int64            `yaml:"weight"`
	Health   string            `yaml:"health"`
	ID       string            `yaml:"id"`
	Tags     []string          `yaml:"tags"`
	Meta     map[string]string `yaml:"meta"`
	Metadata map[string]string `yaml:"metadata"`
	Region   string            `yaml:"region"`
	Zone     string            `yaml:"zone"`
	Priority *int64            `yaml:"priority"`
	State    string            `yaml:"state"`
}

// Load reads a catalog and returns its services, sorted by name. Every
// mistake is in the error, one a line, as FILE:LINE:COL: path: what is wrong.
//
//	services:
//	  api:
//	    protocol: http                             # http or tcp; optional
//	    identities: ["spiffe://example.org/api"]   # optional
//	    endpoints:
//	      - {address: "10.0.0.5:8080", weight: 2, health: passing, id: api-1, tags: [blue]}
//	      - {address: "10.0.0.6:8080", region: eu, zone: eu-1, priority: 1, metadata: {version: "2"}, state: draining}
//
// An address is an IP address with a port; localhost stands for 127.0.0.1.
// Weight is 1 to 65535, default 1; health is passing (default), warning or
// critical; state is active (default) or draining. meta is another word for
// metadata.
func Load(path string) ([]*discovery.Service, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return decode(path, data, time.Now())
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCatalog+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxCatalog {
		return nil, fmt.Errorf("%s: the catalog has more than %d bytes", path, maxCatalog)
	}
	return data, nil
}

// decode turns the content of a catalog into services.
func decode(path string, data []byte, now time.Time) ([]*discovery.Service, error) {
	c, err := decodeYAML(path, data)
	if err != nil {
		return nil, err
	}
	m := mistakes{path: path, data: data}
	out := make([]*discovery.Service, 0, len(c.Services))
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		out = append(out, c.Services[name].service(name, path, now, &m))
	}
	if err := m.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// decodeYAML decodes a catalog without looking at the meaning of its values.
func decodeYAML(path string, data []byte) (c catalog, err error) {
	// The YAML library panics on some inputs that are not YAML. A broken file
	// must not end a proxy that serves from the last good one.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: the file is not YAML; reading it failed with: %v", path, r)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := dec.Decode(&c); err != nil {
		if errors.Is(err, io.EOF) {
			return c, fmt.Errorf("%s: the catalog is empty; write \"services: {}\" if there is none", path)
		}
		return c, decodeError(path, err)
	}
	if err := dec.Decode(new(catalog)); !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("%s: the catalog holds more than one YAML document", path)
	}
	return c, nil
}

func (e entry) service(name, path string, now time.Time, m *mistakes) *discovery.Service {
	at := []any{"services", name}
	if name == "" {
		m.add(at, "a service needs a name")
	}
	switch e.Protocol {
	case "", "http", "tcp":
	default:
		m.add(append(at, "protocol"), "unknown protocol %q; use http or tcp", e.Protocol)
	}
	for i, id := range e.Identities {
		if !strings.HasPrefix(id, "spiffe://") {
			m.add(append(at, "identities", i), "%q is not a SPIFFE ID; it starts with spiffe://", id)
		}
	}
	s := &discovery.Service{Name: name, Protocol: e.Protocol, Identities: e.Identities, Source: "file " + path, Updated: now}
	seen := map[string]int{}
	for i, ep := range e.Endpoints {
		at := slices.Clip(append(slices.Clone(at), "endpoints", i))
		d := ep.endpoint(at, m)
		key := d.Address.String() + " " + d.ID
		if before, ok := seen[key]; ok {
			m.add(append(at, "address"), "%s is already endpoint %d; give them different ids if both are meant", ep.Address, before)
		}
		seen[key] = i
		s.Endpoints = append(s.Endpoints, d)
	}
	s.Endpoints = discovery.SortEndpoints(s.Endpoints)
	return s
}

func (ep endpoint) endpoint(at []any, m *mistakes) discovery.Endpoint {
	d := discovery.Endpoint{ID: ep.ID, Weight: 1, Tags: ep.Tags, Meta: ep.Meta}
	ep.describe(&d, at, m)
	addr := ep.Address
	if port, ok := strings.CutPrefix(addr, "localhost:"); ok {
		addr = "127.0.0.1:" + port
	}
	a, err := netip.ParseAddrPort(addr)
	switch {
	case ep.Address == "":
		m.add(append(at, "address"), "is required; write an IP address with a port, such as 10.0.0.5:8080")
	case err != nil || a.Port() == 0:
		m.add(append(at, "address"), "%q is not an IP address with a port, such as 10.0.0.5:8080; host names belong to discovery.dns", ep.Address)
	}
	d.Address = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	if ep.Weight != nil {
		if *ep.Weight < 1 || *ep.Weight > discovery.MaxWeight {
			m.add(append(at, "weight"), "%d is out of range; use 1 to %d", *ep.Weight, discovery.MaxWeight)
		} else {
			d.Weight = uint32(*ep.Weight)
		}
	}
	if err := d.Health.UnmarshalText([]byte(ep.Health)); err != nil {
		m.add(append(at, "health"), "%v", err)
	}
	return d
}

// decodeError words an error of the YAML library as FILE:LINE:COL: what is wrong.
func decodeError(path string, err error) error {
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
		p := at.GetToken().Position
		return fmt.Errorf("%s:%d:%d: %s", path, p.Line, p.Column, at.GetMessage())
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return fmt.Errorf("%s: %s", path, first)
}

// mistakes collects what is wrong with the values of a catalog.
type mistakes struct {
	path string
	data []byte
	list []error
}

// add records a mistake; at is the way to the value, keys and indexes.
func (m *mistakes) add(at []any, format string, a ...any) {
	const enough = 100
	if len(m.list) < enough {
		m.list = append(m.list, fmt.Errorf("%s%s: %s: %s", m.path, m.position(at), dotted(at), fmt.Sprintf(format, a...)))
	} else if len(m.list) == enough {
		m.list = append(m.list, fmt.Errorf("%s: there are more mistakes", m.path))
	}
}

func (m *mistakes) err() error { return errors.Join(m.list...) }

// position returns ":LINE:COL" of the value, of the nearest thing around it
// when it is not written, or nothing when that cannot be told.
func (m *mistakes) position(at []any) (pos string) {
	defer func() { _ = recover() }() // as in decodeYAML; the mistake stands without its place
	f, err := parser.ParseBytes(m.data, 0)
	if err != nil {
		return ""
	}
	for ; len(at) > 0; at = at[:len(at)-1] {
		b := (&yaml.PathBuilder{}).Root()
		for _, step := range at {
			switch step := step.(type) {
			case string:
				b = b.Child(step)
			case int:
				b = b.Index(uint(step))
			}
		}
		n, err := b.Build().FilterFile(f)
		if err != nil || n == nil {
			continue
		}
		// The token of a mapping is its first colon; its start is the key.
		switch m := n.(type) {
		case *ast.MappingNode:
			if len(m.Values) > 0 {
				n = m.Values[0].Key
			}
		case *ast.MappingValueNode:
			n = m.Key
		}
		if tok := n.GetToken(); tok != nil && tok.Position != nil {
			return fmt.Sprintf(":%d:%d", tok.Position.Line, tok.Position.Column)
		}
	}
	return ""
}

func dotted(at []any) string {
	var b strings.Builder
	for i, step := range at {
		switch step := step.(type) {
		case string:
			if i > 0 {
				b.WriteByte('.')
			}
			b.WriteString(step)
		case int:
			fmt.Fprintf(&b, "[%d]", step)
		}
	}
	return b.String()
}
