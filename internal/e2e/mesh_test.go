package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const trustDomain = "e2e.test"

func spiffe(service string) string { return "spiffe://" + trustDomain + "/" + service }

// mesh is a trust domain with a catalog, and a folder for everything.
type mesh struct {
	t    *testing.T
	dir  string
	ca   *authority
	seen int // sidecars made so far
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	return &mesh{t: t, dir: t.TempDir(), ca: newAuthority(t)}
}

// sections is a configuration: top-level keys with their values in YAML's flow
// form. A key with an empty value is left out.
type sections map[string]string

func (s sections) yaml() string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if s[key] != "" {
			fmt.Fprintf(&b, "%s: %s\n", key, s[key])
		}
	}
	return b.String()
}

// with returns a copy in which more is added or replaced.
func (s sections) with(more sections) sections {
	s = maps.Clone(s)
	maps.Copy(s, more)
	return s
}

// catalogPath is the file that sidecars of the mesh find each other by.
func (m *mesh) catalogPath() string { return filepath.Join(m.dir, "catalog.yaml") }

// catalog replaces the catalog: the addresses of each service.
func (m *mesh) catalog(services map[string][]string) {
	m.t.Helper()
	var b strings.Builder
	b.WriteString("services:\n")
	for _, name := range slices.Sorted(maps.Keys(services)) {
		fmt.Fprintf(&b, "  %s:\n    endpoints: [", name)
		for i, a := range services[name] {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, `{address: "%s"}`, a)
		}
		b.WriteString("]\n")
	}
	writeFile(m.t, m.catalogPath(), b.String())
}

// discovery is the section that reads the catalog.
func (m *mesh) discovery() string { return fmt.Sprintf(`{file: {path: "%s"}}`, m.catalogPath()) }

// identity writes the files of a service's identity and returns the section
// that reads them.
func (m *mesh) identity(service string) string {
	m.t.Helper()
	m.ca.write(m.dir, service, spiffe(service))
	return fmt.Sprintf(`{trust_domain: %s, files: {cert: "%s", key: "%s", bundle: "%s"}}`, trustDomain,
		filepath.Join(m.dir, service+".crt"), filepath.Join(m.dir, service+".key"), filepath.Join(m.dir, "bundle.pem"))
}

// inbound starts the sidecar of an application that others call and returns it
// with the address that they call.
func (m *mesh) inbound(service string, app int, more sections) (*sidecar, string) {
	m.t.Helper()
	listen := freeAddress(m.t)
	s := sections{
		"service": fmt.Sprintf("{name: %s, port: %d}", service, app),
		"inbound": fmt.Sprintf(`{listen: "%s"}`, listen),
	}
	return m.sidecar(service, s.with(more)), listen
}

// outbound starts the sidecar of an application that calls upstream, and
// returns it with the address for these calls.
func (m *mesh) outbound(service, upstream string, more sections) (*sidecar, string) {
	m.t.Helper()
	listen := freeAddress(m.t)
	s := sections{
		"service":   fmt.Sprintf("{name: %s}", service),
		"outbound":  fmt.Sprintf(`{upstreams: [{service: %s, listen: "%s"}]}`, upstream, listen),
		"discovery": m.discovery(),
	}
	return m.sidecar(service, s.with(more)), listen
}

// pair is two sidecars, web in front of api, and the address on which web's
// application calls api.
type pair struct {
	web, api *sidecar
	call     string // http://...
	address  string // the same without the scheme
	inbound  string // of api's sidecar
	shared   bool   // the two share a connection
}

// pair starts a sidecar for an application api on port app and one for web,
// which calls it.
func (m *mesh) pair(app int, web, api sections) *pair {
	m.t.Helper()
	p := &pair{}
	p.api, p.inbound = m.inbound("api", app, api)
	m.catalog(map[string][]string{"api": {p.inbound}})
	p.web, p.address = m.outbound("web", "api", web)
	p.call = "http://" + p.address
	p.api.ready()
	p.web.ready()
	return p
}
