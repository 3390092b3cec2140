package demo

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"
)

const (
	trustDomain = "demo.test"
	serviceWeb  = "web"
	serviceAPI  = "api"
	instances   = 3
)

func spiffeID(service string) string { return "spiffe://" + trustDomain + "/" + service }

// place is where one instance of a service lives: the addresses of its
// application and of its sidecar.
type place struct {
	Name     string // such as api-2
	Service  string
	App      string // the application
	Inbound  string // the sidecar, for the mesh
	Outbound string // the sidecar, for the application's calls of api; empty for api itself
	Admin    string
}

// mesh is everything that the configuration files are made from.
type mesh struct {
	Dir          string // holds the files and the socket
	Socket       string // of the Workload API, unix://...
	Consul       string // the agent's URL; empty with the file catalog
	Web          place
	API          [instances]place
	BaseEjection time.Duration
	MaxEjection  time.Duration
}

// newMesh lays out a mesh on ports of loopback that are free now.
func newMesh(dir string) (*mesh, error) {
	ports, err := freePorts(4 + 3*instances)
	if err != nil {
		return nil, err
	}
	next := func() string {
		a := "127.0.0.1:" + strconv.Itoa(ports[0])
		ports = ports[1:]
		return a
	}
	m := &mesh{
		Dir: dir, Socket: "unix://" + filepath.Join(dir, "agent.sock"),
		Web:          place{Name: serviceWeb, Service: serviceWeb, App: next(), Inbound: next(), Outbound: next(), Admin: next()},
		BaseEjection: baseEjection, MaxEjection: 2 * baseEjection,
	}
	for i := range m.API {
		m.API[i] = place{Name: fmt.Sprintf("%s-%d", serviceAPI, i+1), Service: serviceAPI, App: next(), Inbound: next(), Admin: next()}
	}
	return m, nil
}

const baseEjection = 3 * time.Second

func (m *mesh) places() []place { return append([]place{m.Web}, m.API[:]...) }

// names returns the instance at each address that web's sidecar calls.
func (m *mesh) names() map[string]string {
	names := make(map[string]string, instances)
	for i := range m.API {
		names[m.API[i].Inbound] = m.API[i].Name
	}
	return names
}

func (m *mesh) catalogPath() string       { return filepath.Join(m.Dir, "catalog.yaml") }
func (m *mesh) configPath(p place) string { return filepath.Join(m.Dir, p.Name+".yaml") }

// port returns the port of an address.
func port(address string) string {
	_, p, _ := strings.Cut(address, ":")
	return p
}

// catalog is the file that web's sidecar discovers api by.
const catalog = `services:
  api:
    protocol: http
    endpoints:
{{- range .API}}
      - {address: "{{.Inbound}}", id: {{.Name}}}
{{- end}}
`

// sidecar is the configuration of one sidecar. Faults come and go quickly in
// the demo, so its times are shorter than the defaults, and one instance of
// three may stay alone. The balancer counts requests in flight: the default,
// which goes by latency and penalizes failures, may send an instance so little
// at this low load that its failures are few and its ejection comes late.
const sidecar = `service:  {name: {{.Place.Service}}, port: {{port .Place.App}}, protocol: http}
identity: {workload_api: "{{.Mesh.Socket}}", trust_domain: {{.Domain}}}
{{- if .Mesh.Consul}}
discovery:
  consul:
    address: "{{.Mesh.Consul}}"
{{- if not .Place.Outbound}}
    register: {id: {{.ConsulID}}, check: {ttl: 3s, deregister_after: 1m}}
{{- end}}
{{- else if .Place.Outbound}}
discovery: {file: {path: "{{.Mesh.CatalogPath}}"}}
{{- end}}
inbound:  {listen: "{{.Place.Inbound}}", mtls: strict}
{{- if .Place.Outbound}}
outbound: {upstreams: [{service: api, listen: "{{.Place.Outbound}}"}]}
policies:
  api:
    timeout: 2s
    retry:   {attempts: 3, on: [connect_failure, reset, unavailable, stale_connection, server_error]}
    outlier: {consecutive_failures: 5, base_ejection: {{.Mesh.BaseEjection}}, max_ejection: {{.Mesh.MaxEjection}}, jitter: 0.2, max_ejected_percent: 67, keep_endpoints: 1}
    breaker: {failure_percent: 80}
    balance: {algorithm: least_request, slow_start: 2s}
{{- else}}
authorization:
  rules:
    - {name: only-web, from: ["{{.WebID}}"]}
{{- end}}
telemetry:
  access_log: {path: stdout}
  log:        {level: info, format: json}
admin: {listen: "{{.Place.Admin}}"}
drain: {delay: 0s, timeout: 1s}
`

func (m *mesh) catalogText() (string, error) { return expand(catalog, m) }

func (m *mesh) sidecarText(p place) (string, error) {
	return expand(sidecar, map[string]any{
		"Place": p, "Mesh": m, "Domain": trustDomain, "WebID": spiffeID(serviceWeb), "ConsulID": m.consulID(p),
	})
}

// CatalogPath is for the template.
func (m *mesh) CatalogPath() string { return m.catalogPath() }

// consulID names an instance on the agent, apart from those of another demo.
func (m *mesh) consulID(p place) string { return "outrigger-demo-" + p.Name + "-" + port(p.Inbound) }

func expand(text string, data any) (string, error) {
	t, err := template.New("").Funcs(template.FuncMap{"port": port}).Parse(text)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return "", err
	}
	return b.String(), nil
}

// write puts all files in place.
func (m *mesh) write() error {
	if m.Consul == "" {
		text, err := m.catalogText()
		if err != nil {
			return err
		}
		if err := os.WriteFile(m.catalogPath(), []byte(text), 0o600); err != nil {
			return err
		}
	}
	for _, p := range m.places() {
		text, err := m.sidecarText(p)
		if err != nil {
			return err
		}
		if err := os.WriteFile(m.configPath(p), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// freePorts returns n ports that are free on 127.0.0.1, below those that the
// kernel gives to outgoing connections, so that none of these takes the port
// of an instance that is down for a while.
func freePorts(n int) ([]int, error) {
	const low, high = 30000, 32000 // ip_local_port_range begins at 32768 by default
	ports := make([]int, 0, n)
	taken := map[int]bool{}
	for try := 0; len(ports) < n; try++ {
		if try == 100*n {
			return nil, fmt.Errorf("no %d free ports between %d and %d on 127.0.0.1", n, low, high)
		}
		p := low + rand.IntN(high-low)
		if taken[p] {
			continue
		}
		taken[p] = true
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(p))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}
