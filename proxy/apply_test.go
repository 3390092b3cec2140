package proxy

import (
	"net"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
)

// same replaces the discovery section of text by that of the configuration in
// use, which must not change.
func (r *running) same(t *testing.T, text string) *config.Loaded {
	t.Helper()
	l := parse(t, text)
	l.Config.Discovery = r.initial.Config.Discovery
	return l
}

// A listener that gets another name, or changes places with another, keeps its
// socket and its connections.
func TestApplyKeepsSockets(t *testing.T) {
	a, b := address(t), address(t)
	r := run(t, upstreams(t, "one", a, "two", b))
	c, err := net.Dial("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	soon(t, "the connection is accepted", func() bool { return r.listeners["outbound:one"].Connections() == 1 })
	before := r.listeners["outbound:one"]
	for _, text := range []string{upstreams(t, "one", b, "two", a), upstreams(t, "one", b, "three", a)} {
		if err := r.Apply(r.same(t, text)); err != nil {
			t.Fatal(err)
		}
		at := r.Listen()
		name := "outbound:two"
		if r.listeners[name] == nil {
			name = "outbound:three"
		}
		if r.listeners[name] != before || at[name].String() != a || before.Plan().Name != name || before.Connections() != 1 {
			t.Errorf("%s: %v; the connection of %s is on %s with %d", name, at, a, before.Plan().Name, before.Connections())
		}
	}
}

// A plan of which one socket cannot be had opens none.
func TestApplyIsAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	a, b := address(t), address(t)
	r := run(t, upstreams(t, "one", a))
	err = r.Apply(r.same(t, upstreams(t, "one", a, "two", b, "three", taken.Addr().String())))
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Fatalf("error %v", err)
	}
	if open(b) {
		t.Error("a socket of the refused plan is open")
	}
	if !open(a) || len(r.Listen()) != 1 || r.current.Load().Version != 1 {
		t.Errorf("the plan before it is not in use: %v", r.Listen())
	}
	if v := r.viewReload(); v.Failures != 1 || v.LastError == "" || v.Version != 1 {
		t.Errorf("shown: %+v", v)
	}
	// What is removed is closed, and the trouble is over.
	if err := r.Apply(r.same(t, upstreams(t, "two", b))); err != nil {
		t.Fatal(err)
	}
	if open(a) || !open(b) {
		t.Errorf("listeners: %v", r.Listen())
	}
	if v := r.viewReload(); v.LastError != "" || v.Version != 2 || v.Reloads != 2 {
		t.Errorf("shown: %+v", v)
	}
}

// Its own wildcard listener is not blamed on another process.
func TestApplyNamesOwnListener(t *testing.T) {
	a := address(t)
	_, port, _ := net.SplitHostPort(a)
	r := run(t, upstreams(t, "one", "0.0.0.0:"+port))
	err := r.Apply(r.same(t, upstreams(t, "one", a)))
	if err == nil || !strings.Contains(err.Error(), "own listener outbound:one on 0.0.0.0:"+port) {
		t.Errorf("error %v", err)
	}
}

func TestRestartNeeded(t *testing.T) {
	const base = "service: {name: web, port: 8080}\nidentity: {files: {cert: a, key: b, bundle: c}}\ndiscovery: {consul: {register: {}}}\n" +
		"inbound: {listen: \"127.0.0.1:15006\"}\ntelemetry: {log: {level: info}}\ndrain: {delay: 1s}\n"
	for _, c := range []struct{ name, old, now, path string }{
		{"nothing", "1s", "1s", ""},
		{"drain", "delay: 1s", "delay: 2s", ""},
		{"log level", "level: info", "level: debug", ""},
		{"port of the application", "8080", "8081", ""},
		{"log format", "level: info", "format: json", "telemetry"},
		{"access log", "{log:", "{access_log: {path: stderr, sample_percent: 5}, log:", ""},
		{"identity", "cert: a", "cert: z", "identity"},
		{"discovery", "register: {}", "register: {id: x}", "discovery"},
		{"name", "name: web", "name: wab", "service.name"},
		{"registered address", "15006", "15007", "inbound.listen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &Proxy{loaded: parse(t, base)}
			err := p.restartNeeded(parse(t, strings.Replace(base, c.old, c.now, 1)))
			switch {
			case c.path == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.path != "" && (err == nil || !strings.Contains(err.Error(), ": "+c.path+": cannot change while")):
				t.Errorf("error %v; want one about %s", err, c.path)
			}
		})
	}
}
