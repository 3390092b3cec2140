package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
)

// telling is an application that says from where it is called, by HTTP on port
// 8080 and by TCP on port 9090, at all addresses of the namespace.
func telling(t *testing.T) {
	t.Helper()
	host := func(address string) string {
		h, _, _ := net.SplitHostPort(address)
		return h
	}
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "api called from %s", host(r.RemoteAddr))
	}))
	_ = app.Listener.Close()
	app.Listener = listenAt(t, "[::]:8080")
	app.Start()
	t.Cleanup(app.Close)
	ln := listenAt(t, "[::]:9090")
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(c, "called from %s\n", host(c.RemoteAddr().String()))
			go func() {
				defer c.Close()
				echoTCP(c)
			}()
		}
	}()
}

// With --mode tproxy others' connections come to the proxy as they are, by IPv4
// and IPv6, and those to other ports go on to the application from their
// callers' addresses. The proxy has a user of its own and CAP_NET_ADMIN alone.
func TestTransparentTProxy(t *testing.T) {
	if !alone(t) {
		return
	}
	v := newVillage(t)
	m := newMesh(t)
	telling(t)
	config := func(mtls, other string) sections {
		return sections{
			"service":  "{name: api, port: 8080}",
			"inbound":  fmt.Sprintf(`{listen: "[::]:15006", mtls: %s, transparent: {mode: tproxy, other_ports: %s}}`, mtls, other),
			"outbound": "{transparent: {}}",
		}
	}
	api := m.prepare("api", config("permissive", "passthrough"))
	rules := []string{"--mode", "tproxy", "--proxy-uid", fmt.Sprint(proxyUser), "--proxy-inbound-port", "15006"}
	if out, code := intercept(t, append([]string{"install"}, rules...)...); code != 0 {
		t.Fatal(out)
	}
	if _, err := v.client.chat("10.8.0.1:9090", ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("before the proxy listens: %v", err)
	}
	m.launchAs(api, true)
	api.ready()
	cert := m.ca.issue(spiffe("web"), nil)
	for host, client := range map[string]string{"10.8.0.1": "10.8.0.2", "[fd08::1]": "fd08::2"} {
		status, body, err := v.client.fetch("http://" + host + ":8080/plain")
		if err != nil || status != http.StatusOK || !strings.HasPrefix(body, "api called from ") {
			t.Errorf("plaintext to %s: %d %s %v", host, status, body, err)
		}
		r := api.recorded("the call to "+host, func(r *record) bool { return r.Original == host+":8080" && r.Path == "/plain" })
		if r.Direction != "inbound" || r.Status != http.StatusOK || !strings.Contains(r.Peer, client) {
			t.Errorf("the record is %+v", r)
		}
		if got := v.client.answer(host+":8080", &cert); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("mTLS to %s: %q", host, got)
		}
		if got, err := v.client.chat(host+":9090", "hello"); err != nil || got != "called from "+client+"\nhello" {
			t.Errorf("another port of %s: %q %v", host, got, err)
		}
		// What begins here goes its way: out, and to the application by its own address.
		if got, err := chat(v.outside[client], "hello"); err != nil || got != "outside\nhello" {
			t.Errorf("to %s: %q %v", v.outside[client], got, err)
		}
	}
	api.intercepted(4, "service")
	api.intercepted(2, "passthrough")
	if out, code := intercept(t, "verify"); code != 0 {
		t.Errorf("verify: %d %s", code, out)
	}

	api.rewrite(config("strict", "refuse"))
	m.own()
	eventually(t, patience, "other ports are refused", func() (bool, string) {
		got, err := v.client.chat("10.8.0.1:9090", "hello")
		return errors.Is(err, syscall.ECONNRESET), fmt.Sprintf("%q %v", got, err)
	})
	for _, host := range []string{"10.8.0.1", "[fd08::1]"} {
		if status, body, err := v.client.fetch("http://" + host + ":8080/"); err == nil {
			t.Errorf("strict, plaintext to %s: %d %s", host, status, body)
		}
		if got := v.client.answer(host+":8080", &cert); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("strict, mTLS to %s: %q", host, got)
		}
	}
	// A socket stays what it is: another mode is refused, and the last one goes on.
	api.rewrite(sections{"inbound": `{listen: "[::]:15006", mtls: strict, transparent: {mode: redirect}}`})
	m.own()
	eventually(t, patience, "another mode is refused", func() (bool, string) {
		out := api.out.String()
		return strings.Contains(out, "restart the proxy to change its address or mode"), out
	})
	if got := v.client.answer("[fd08::1]:8080", &cert); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("after a mode that was refused: %q", got)
	}
	if out, code := intercept(t, "remove"); code != 0 {
		t.Fatal(out)
	}
	if status, body, err := v.client.fetch("http://10.8.0.1:8080/"); err != nil || body != "api called from 10.8.0.2" {
		t.Errorf("without rules: %d %s %v", status, body, err)
	}
}

// Without the capability the proxy says what it needs and does not start.
func TestTransparentTProxyCapability(t *testing.T) {
	if !alone(t) {
		return
	}
	m := newMesh(t)
	api := m.prepare("api", sections{
		"service": "{name: api, port: 8080}",
		"inbound": `{listen: "[::]:15006", transparent: {mode: tproxy}}`,
	})
	m.launchAs(api, false)
	if code := api.code(patience); code == 0 || !strings.Contains(api.out.String(), "mode: tproxy needs CAP_NET_ADMIN") {
		t.Errorf("exit code %d", code)
	}
}

// outbound.transparent takes connections that rules of others bring by TPROXY.
func TestTransparentOutboundTProxy(t *testing.T) {
	if !alone(t) {
		return
	}
	v := newVillage(t)
	m := newTransparentMesh(t, "{mode: tproxy}")
	m.launchAs(m.web, true)
	m.api.ready()
	m.web.ready()
	tool(t, "nft", fmt.Sprintf(`
table inet outrigger_e2e {
	chain output {
		type route hook output priority mangle; policy accept;
		meta skuid %d return
		ip daddr 127.0.0.0/8 return
		ip6 daddr ::1 return
		meta l4proto tcp ct direction original meta mark set 7
	}
	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
		iifname lo meta mark 7 meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:15001
		iifname lo meta mark 7 meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:15001
	}
}
`, proxyUser), "-f", "-")
	for _, version := range []string{"-4", "-6"} {
		tool(t, "ip", "", version, "rule", "add", "fwmark", "7", "lookup", "107")
		tool(t, "ip", "", version, "route", "add", "local", "default", "dev", "lo", "table", "107")
	}
	for _, at := range []string{"240.0.0.5:8080", "[fd40::5]:7"} {
		status, body, err := fetchOnce("http://" + at + "/hello")
		if err != nil || status != http.StatusOK || !strings.Contains(body, `"api-1"`) {
			t.Errorf("%s: %d %s %v", at, status, body, err)
		}
		if r := m.web.recorded("the call", func(r *record) bool { return r.Original == at }); r.Listener != "outbound:api" || r.UpstreamID != spiffe("api") {
			t.Errorf("the record is %+v", r)
		}
	}
	for _, at := range v.outside {
		if got, err := chat(at, "hello"); err != nil || got != "outside\nhello" {
			t.Errorf("%s: %q %v", at, got, err)
		}
		m.web.recorded("the connection", func(r *record) bool { return r.Original == at && r.Listener == "passthrough" && r.Reason == "ok" })
	}
	m.web.rewrite(sections{"outbound": outboundTransparent("{mode: tproxy, unknown: refuse}", virtualUpstreams)})
	m.own()
	eventually(t, patience, "unknown destinations are refused", func() (bool, string) {
		got, err := chat(v.outside["10.8.0.2"], "hello")
		return errors.Is(err, syscall.ECONNRESET), fmt.Sprintf("%q %v", got, err)
	})
}
