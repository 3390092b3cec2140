package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// interceptPort is where connections are redirected to in namespaces of these
// tests, which nobody else uses.
const interceptPort = 15001

// transparentMesh is a service api with its sidecar and the sidecar of web, which
// finds api and db at virtual addresses.
type transparentMesh struct {
	*mesh
	web, api *sidecar
}

const virtualUpstreams = `[{service: api, addresses: ["240.0.0.5", "fd40::5", "10.96.1.1:80"]}, {service: db, protocol: tcp, addresses: ["240.0.0.6"]}, {service: chat, protocol: auto, addresses: ["240.0.0.7"]}]`

func outboundTransparent(section, upstreams string) string {
	return fmt.Sprintf(`{transparent: %s, upstreams: %s}`, section, upstreams)
}

func newTransparentMesh(t *testing.T, transparent string) *transparentMesh {
	t.Helper()
	m := &transparentMesh{mesh: newMesh(t)}
	app := httptest.NewServer(echo("api-1"))
	t.Cleanup(app.Close)
	var inbound string
	m.api, inbound = m.inbound("api", app.Listener.Addr().(*net.TCPAddr).Port, nil)
	m.catalog(map[string][]string{"api": {inbound}, "db": {greeter(t, "db at your service\n")}, "chat": {greeter(t, "220 chat\n")}})
	m.web = m.prepare("web", sections{
		"service":   "{name: web}",
		"discovery": m.discovery(),
		"outbound":  outboundTransparent(transparent, virtualUpstreams),
		"policies":  `{db: {transport: plaintext}, chat: {transport: plaintext}}`,
	})
	return m
}

// greeter is a server that speaks first and then repeats what it hears.
func greeter(t *testing.T, greeting string) string {
	t.Helper()
	return greetAt(t, "127.0.0.1:0", greeting)
}

func greetAt(t *testing.T, address, greeting string) string {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	acceptAll(t, ln, func(c net.Conn) {
		_, _ = io.WriteString(c, greeting)
		_, _ = io.Copy(c, c)
	})
	return ln.Addr().String()
}

// chat connects to a greeter and returns what it says; the error of the
// first step that fails.
func chat(address, say string) (string, error) {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	return talkOn(c, say)
}

// talkOn is chat on a connection, which it closes.
func talkOn(c net.Conn, say string) (string, error) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	greeting, err := r.ReadString('\n')
	if err != nil {
		return greeting, err
	}
	if _, err := io.WriteString(c, say); err != nil {
		return greeting, err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return greeting, err
	}
	rest, err := io.ReadAll(r)
	return greeting + string(rest), err
}

// fetchOnce makes one request on a connection of its own.
func fetchOnce(url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// intercepted waits until so many connections came to what result says.
func (s *sidecar) intercepted(least float64, result string) {
	s.t.Helper()
	s.counts(least, "outrigger_listener_intercepted_connections_total", `result="`+result+`"`)
}

// Connections to virtual addresses, by IPv4 and IPv6 and on any port, are those of
// the upstream: its protocol, mTLS, records, metrics.
func TestTransparentUpstreams(t *testing.T) {
	if !alone(t) {
		return
	}
	m := newTransparentMesh(t, "{}")
	redirect(t, interceptPort)
	m.web.launch()
	m.api.ready()
	m.web.ready()
	for _, at := range []string{"240.0.0.5", "240.0.0.5:8080", "[fd40::5]:7", "10.96.1.1"} {
		status, body, err := fetchOnce("http://" + at + "/hello")
		if err != nil || status != http.StatusOK || !strings.Contains(body, `"api-1"`) {
			t.Errorf("%s: %d %s %v", at, status, body, err)
		}
	}
	r := m.web.recorded("the call to [fd40::5]:7", func(r *record) bool { return r.Original == "[fd40::5]:7" })
	if r.Listener != "outbound:api" || r.Cluster != "api" || r.Path != "/hello" || r.UpstreamID != spiffe("api") {
		t.Errorf("the record is %+v", r)
	}
	m.web.intercepted(4, "virtual")
	for at, want := range map[string]string{"240.0.0.6:5432": "db at your service\n", "240.0.0.7:25": "220 chat\n", "240.0.0.7:4000": "220 chat\n"} {
		if got, err := chat(at, "and you?"); err != nil || got != want+"and you?" {
			t.Errorf("%s: %q %v", at, got, err)
		}
	}
	r = m.web.recorded("the connection to db", func(r *record) bool { return r.Original == "240.0.0.6:5432" })
	if r.Cluster != "db" || r.Protocol != "tcp" || r.Listener != "outbound:db" {
		t.Errorf("the record is %+v", r)
	}
	if out := m.web.mustTell("explain", "--to", "240.0.0.5:8080"); !strings.Contains(out, "outbound:api") || !strings.Contains(out, "240.0.0.5") {
		t.Errorf("explain says:\n%s", out)
	}

	// Addresses change while the proxy runs; connections go on.
	kept, err := net.Dial("tcp", "240.0.0.6:1")
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	m.web.rewrite(sections{"outbound": outboundTransparent("{}", strings.ReplaceAll(virtualUpstreams, "240.0.0.5", "240.0.0.55"))})
	eventually(t, patience, "api is found at its new address", func() (bool, string) {
		status, body, err := fetchOnce("http://240.0.0.55/")
		return status == http.StatusOK, fmt.Sprint(status, body, err)
	})
	r = m.web.recorded("the call to the new address", func(r *record) bool { return r.Original == "240.0.0.55:80" && r.Cluster == "api" })
	if r.Status != http.StatusOK {
		t.Errorf("the record is %+v", r)
	}
	_ = kept.SetDeadline(time.Now().Add(patience))
	if line, err := bufio.NewReader(kept).ReadString('\n'); err != nil || line != "db at your service\n" {
		t.Errorf("the kept connection says %q, %v", line, err)
	}
}

// What no upstream has is passed through to where it was going, or reset.
func TestTransparentUnknown(t *testing.T) {
	if !alone(t) {
		return
	}
	m := newTransparentMesh(t, "{}")
	outside := greetAt(t, "10.9.9.1:0", "outside\n")
	outside6 := greetAt(t, "[fd99::1]:0", "outside\n")
	redirect(t, interceptPort)
	m.web.launch()
	m.api.ready()
	m.web.ready()
	for _, at := range []string{outside, outside6} {
		if got, err := chat(at, "hello"); err != nil || got != "outside\nhello" {
			t.Errorf("%s: %q %v", at, got, err)
		}
	}
	r := m.web.recorded("the connection that was passed through", func(r *record) bool { return r.Original == outside })
	if r.Listener != "passthrough" || r.Cluster != "passthrough" || r.Endpoint != outside || r.BytesIn != 5 || r.BytesOut != 13 || r.Reason != "ok" {
		t.Errorf("the record is %+v", r)
	}
	m.web.intercepted(2, "passthrough")
	// Nobody listens there: the caller's connection ends.
	if got, err := chat("10.9.9.1:1", ""); err == nil {
		t.Errorf("a port on which nobody listens says %q", got)
	}
	m.web.recorded("the failure", func(r *record) bool { return r.Original == "10.9.9.1:1" && r.Reason == "connect_failed" })
	if out := m.web.mustTell("why", "--last-failures"); !strings.Contains(out, "intercepted on the way to 10.9.9.1:1, ") {
		t.Errorf("why says:\n%s", out)
	}
	// The way to the listener itself would be a circle.
	if _, err := chat(fmt.Sprintf("127.0.0.1:%d", interceptPort), ""); err == nil {
		t.Error("the listener takes connections that were not redirected")
	}

	m.web.rewrite(sections{"outbound": outboundTransparent("{unknown: refuse}", virtualUpstreams)})
	eventually(t, patience, "unknown destinations are refused", func() (bool, string) {
		got, err := chat(outside, "hello")
		return errors.Is(err, syscall.ECONNRESET), fmt.Sprintf("%q %v", got, err)
	})
	m.web.intercepted(1, "refused")
	if status, body, err := fetchOnce("http://240.0.0.5/"); err != nil || status != http.StatusOK {
		t.Errorf("the upstream: %d %s %v", status, body, err)
	}
}

// Rules that forget to exempt the proxy do not send it in circles.
func TestTransparentLoop(t *testing.T) {
	if !alone(t) {
		return
	}
	m := newTransparentMesh(t, "{}")
	outside := greetAt(t, "10.9.9.1:0", "outside\n")
	redirectAll(t, interceptPort)
	m.web.launch()
	m.web.ready()
	if got, err := chat(outside, "hello"); err == nil {
		t.Errorf("the connection says %q", got)
	}
	m.web.recorded("the circle", func(r *record) bool { return r.Original == outside && strings.Contains(r.Detail, "exempt") })
	m.web.intercepted(1, "loop")
	eventually(t, patience, "the circle has ended", func() (bool, string) {
		n := m.web.metric("outrigger_listener_connections_active", `listener="passthrough"`)
		return n == 0, fmt.Sprint(n, " are open")
	})
	if n := m.web.metric("outrigger_listener_intercepted_connections_total", `result="passthrough"`); n > 8 {
		t.Errorf("the connection went round %v times", n)
	}
}

// Connections that come before the first plan are held, passed through or reset.
func TestTransparentBeforeReady(t *testing.T) {
	if !alone(t) {
		return
	}
	for _, c := range []struct{ name, section, result string }{
		{"hold", "{hold_time: 60s, max_held: 2}", "virtual"},
		{"allow", "{before_ready: allow, unknown: refuse}", "early_passthrough"},
		{"refuse", "{before_ready: refuse}", "early_refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTransparentMesh(t, c.section)
			// The proxy waits for its identity, and has no plan before.
			cert := filepath.Join(m.dir, "web.crt")
			if err := os.Rename(cert, cert+".later"); err != nil {
				t.Fatal(err)
			}
			outside := greetAt(t, "10.9.9.1:0", "outside\n")
			redirect(t, interceptPort)
			m.api.ready()
			m.web.launch()
			eventually(t, patience, "the admin API answers", func() (bool, string) {
				status, body := m.web.get("/metrics")
				return status == http.StatusOK, body
			})
			type answer struct {
				status int
				body   string
				err    error
			}
			answers := make(chan answer, 2)
			switch c.name {
			case "hold":
				for range 2 {
					go func() {
						status, body, err := fetchOnce("http://240.0.0.5/")
						answers <- answer{status, body, err}
					}()
				}
				m.web.counts(2, "outrigger_listener_held_connections_total")
				if _, err := chat("240.0.0.6:1", ""); err == nil {
					t.Error("one more connection than may be held is served")
				}
				m.web.intercepted(1, "hold_full")
			case "allow":
				if got, err := chat(outside, "hello"); err != nil || got != "outside\nhello" {
					t.Errorf("%q %v", got, err)
				}
				m.web.intercepted(1, c.result)
			case "refuse":
				if got, err := chat(outside, "hello"); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%q %v", got, err)
				}
				m.web.intercepted(1, c.result)
			}
			if err := os.Rename(cert+".later", cert); err != nil {
				t.Fatal(err)
			}
			m.web.ready()
			if c.name == "hold" {
				for range 2 {
					if a := <-answers; a.err != nil || a.status != http.StatusOK {
						t.Errorf("held: %d %s %v", a.status, a.body, a.err)
					}
				}
				m.web.intercepted(2, c.result)
			}
			if status, body, err := fetchOnce("http://240.0.0.5/"); err != nil || status != http.StatusOK {
				t.Errorf("afterwards: %d %s %v", status, body, err)
			}
			if _, err := chat(outside, "hello"); (err == nil) != (c.name != "allow") {
				t.Errorf("afterwards, outside: %v", err)
			}
			m.web.signal(syscall.SIGTERM)
			if code := m.web.code(patience); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// A connection to the address of an instance goes to that instance, by mTLS: to
// that of its port, or to the only one that has the address.
func TestTransparentDirect(t *testing.T) {
	if !alone(t) {
		return
	}
	tool(t, "ip", "", "addr", "add", "10.9.9.2/24", "dev", "v0")
	m := newMesh(t)
	var instances []string
	for i, ip := range []string{"10.9.9.1", "10.9.9.1", "10.9.9.2"} {
		app := httptest.NewServer(echo(fmt.Sprintf("api-%d", i)))
		t.Cleanup(app.Close)
		listen := fmt.Sprintf("%s:%d", ip, 20000+i)
		s := m.sidecar("api", sections{
			"service": fmt.Sprintf("{name: api, port: %d}", app.Listener.Addr().(*net.TCPAddr).Port),
			"inbound": fmt.Sprintf(`{listen: "%s"}`, listen),
		})
		s.ready()
		instances = append(instances, listen)
	}
	m.catalog(map[string][]string{"api": instances})
	web := m.prepare("web", sections{
		"service":   "{name: web}",
		"discovery": m.discovery(),
		"outbound": outboundTransparent("{unknown: refuse}",
			`[{service: api, direct: true, addresses: ["240.0.0.5"], routes: [{match: {path_prefix: /hello}, respond: {status: 418}}]}]`),
	})
	redirect(t, interceptPort)
	web.launch()
	web.ready()
	for at, want := range map[string]string{
		"10.9.9.1:20000": "api-0", "10.9.9.1:20001": "api-1", "10.9.9.2:20002": "api-2",
		"10.9.9.2:8080": "api-2", // the application's own port
	} {
		for range 3 {
			status, body, err := fetchOnce("http://" + at + "/hello")
			if err != nil || status != http.StatusOK || !strings.Contains(body, `"`+want+`"`) {
				t.Errorf("%s: %d %s %v, want %s", at, status, body, err, want)
			}
		}
	}
	r := web.recorded("the call of an instance", func(r *record) bool { return r.Original == "10.9.9.2:8080" })
	if r.Listener != "direct:api" || r.Endpoint != "10.9.9.2:20002" || r.UpstreamID != spiffe("api") {
		t.Errorf("the record is %+v", r)
	}
	web.intercepted(12, "direct")
	if out := web.mustTell("explain", "--to", "10.9.9.2:8080"); !strings.Contains(out, "10.9.9.2:20002") || strings.Contains(out, "10.9.9.1:20000") {
		t.Errorf("explain says:\n%s", out)
	}
	// Two instances have that address, and neither the port.
	if status, body, err := fetchOnce("http://10.9.9.1:8080/"); err == nil {
		t.Errorf("an ambiguous address: %d %s", status, body)
	}
	if status, _, err := fetchOnce("http://240.0.0.5/hello"); err != nil || status != http.StatusTeapot {
		t.Errorf("the upstream's own route: %d %v", status, err)
	}
	// An instance that has gone is nobody's.
	m.catalog(map[string][]string{"api": instances[:2]})
	eventually(t, patience, "the instance is forgotten", func() (bool, string) {
		status, body, err := fetchOnce("http://10.9.9.2:8080/")
		return errors.Is(err, syscall.ECONNRESET) || err != nil && strings.Contains(err.Error(), "EOF"), fmt.Sprint(status, body, err)
	})
}

// Connections of others that are redirected to the inbound listener are calls of
// the service, or go by the rule for other ports.
func TestTransparentInbound(t *testing.T) {
	if !alone(t) {
		return
	}
	m := newMesh(t)
	app := httptest.NewUnstartedServer(echo("api-1"))
	app.Listener = listenAt(t, "10.9.9.1:8080")
	app.Start()
	t.Cleanup(app.Close)
	greetAt(t, "10.9.9.1:9090", "another port\n")
	config := func(mtls, other string) sections {
		return sections{
			"service": "{name: api, port: 8080, address: 10.9.9.1}",
			"inbound": fmt.Sprintf(`{listen: "0.0.0.0:15006", mtls: %s, transparent: {other_ports: %s}}`, mtls, other),
		}
	}
	api := m.prepare("api", config("strict", "service"))
	api.launch()
	api.ready()
	// What comes from elsewhere would meet the rule in prerouting; here the test
	// itself is elsewhere, and not in the proxy's group.
	tool(t, "nft", fmt.Sprintf(`
table inet outrigger_e2e {
	chain output {
		type nat hook output priority -100; policy accept;
		meta skgid %d return
		ip daddr 10.9.9.1 meta l4proto tcp redirect to :15006
	}
}
`, proxyGroup), "-f", "-")
	cert := m.ca.issue(spiffe("web"), nil)
	call := func(port string) string { return string(answerTo(t, "10.9.9.1:"+port, &cert)) }
	for _, port := range []string{"8080", "9999", "15006"} {
		if got := call(port); !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.Contains(got, "api-1") {
			t.Errorf("service, port %s: %q", port, got)
		}
	}
	api.intercepted(2, "service")
	if _, _, err := fetchOnce("http://10.9.9.1:8080/"); err == nil {
		t.Error("plaintext is served, and mtls is strict")
	}

	api.rewrite(config("permissive", "service"))
	eventually(t, patience, "plaintext is permitted on the service's port", func() (bool, string) {
		status, body, err := fetchOnce("http://10.9.9.1:8080/")
		return err == nil && status == http.StatusOK, fmt.Sprint(status, body, err)
	})
	if _, _, err := fetchOnce("http://10.9.9.1:9999/"); err == nil {
		t.Error("plaintext is served on another port than the service's")
	}
	if got := call("9999"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("mTLS to another port: %q", got)
	}

	api.rewrite(config("strict", "passthrough"))
	eventually(t, patience, "other ports are passed through", func() (bool, string) {
		got, err := chat("10.9.9.1:9090", "hello")
		return got == "another port\nhello", fmt.Sprintf("%q %v", got, err)
	})
	r := api.recorded("the connection to another port", func(r *record) bool { return r.Original == "10.9.9.1:9090" && r.Reason == "ok" })
	if r.Listener != "inbound:other_ports" || r.Direction != "inbound" {
		t.Errorf("the record is %+v", r)
	}

	api.rewrite(config("strict", "refuse"))
	eventually(t, patience, "other ports are refused", func() (bool, string) {
		got, err := chat("10.9.9.1:9090", "hello")
		return errors.Is(err, syscall.ECONNRESET), fmt.Sprintf("%q %v", got, err)
	})
	if got := call("8080"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("the service: %q", got)
	}
}

// listenAt listens on an address of the namespace.
func listenAt(t *testing.T, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}
