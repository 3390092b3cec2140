package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
)

// Three machines: the application web with its sidecar, the service api with
// its own, and a client without any. Neither application knows of a proxy.
func TestTransparentMachines(t *testing.T) {
	if !alone(t) {
		return
	}
	need(t, "nsenter")
	v := newVillage(t)
	m := newMesh(t)
	v.far.run(t, func() {
		app := httptest.NewUnstartedServer(echo("api-1"))
		_ = app.Listener.Close()
		app.Listener = listenAt(t, "[::]:8080")
		app.Start()
		t.Cleanup(app.Close)
	})
	api := m.prepare("api", sections{
		"service": "{name: api, port: 8080}",
		"inbound": `{listen: "[::]:20000", mtls: strict, transparent: {}}`,
	})
	mtls := func(mode string) {
		api.rewrite(sections{"inbound": fmt.Sprintf(`{listen: "[::]:20000", mtls: %s, transparent: {}}`, mode)})
	}
	v.far.launchIn(api)
	// The instance has been found by its sidecar's port and is called at its own, too.
	m.catalog(map[string][]string{"api": {"10.8.1.1:20000"}})
	web := m.prepare("web", sections{
		"service":   "{name: web}",
		"discovery": m.discovery(),
		"outbound":  outboundTransparent("{}", `[{service: api, addresses: ["240.0.0.5", "fd40::5"], direct: true}]`),
	})
	web.launch()
	web.ready()
	group := fmt.Sprint(proxyGroup)
	for _, args := range [][]string{
		{"install", "--proxy-gid", group, "--proxy-inbound-port", "20000", "--netns", v.far.Path()},
		{"install", "--proxy-gid", group},
	} {
		if out, code := intercept(t, args...); code != 0 {
			t.Fatal(out)
		}
	}
	plain := []string{"http://10.8.1.1:8080/plain", "http://[fd81::1]:8080/plain"}
	cert := m.ca.issue(spiffe("web"), nil)

	// From outside: by mTLS at once, by plaintext when it is permitted.
	eventually(t, patience, "api's sidecar serves", func() (bool, string) {
		got := v.client.answer("10.8.1.1:8080", &cert)
		return strings.HasPrefix(got, "HTTP/1.1 200"), got
	})
	if got := v.client.answer("[fd81::1]:8080", &cert); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("mTLS by IPv6: %q", got)
	}
	for _, url := range plain {
		if status, body, err := v.client.fetch(url); err == nil {
			t.Errorf("strict: %s: %d %s", url, status, body)
		}
	}
	mtls("permissive")
	for _, url := range plain {
		eventually(t, patience, "plaintext is permitted", func() (bool, string) {
			status, body, err := v.client.fetch(url)
			return err == nil && status == http.StatusOK && strings.Contains(body, `"api-1"`), fmt.Sprint(status, body, err)
		})
	}
	api.recorded("the call by IPv6", func(r *record) bool {
		return r.Original == "[fd81::1]:8080" && r.Path == "/plain" && r.Status == http.StatusOK && strings.HasPrefix(r.Peer, "[fd81::2]:")
	})
	mtls("strict")
	eventually(t, patience, "plaintext is refused again", func() (bool, string) {
		status, body, err := v.client.fetch(plain[0])
		return err != nil, fmt.Sprint(status, body, err)
	})

	// From the application: virtual addresses, the instance's own, and others.
	for _, at := range []string{"240.0.0.5:80", "[fd40::5]:8080", "10.8.1.1:8080"} {
		status, body, err := fetchOnce("http://" + at + "/hello")
		if err != nil || status != http.StatusOK || !strings.Contains(body, `"api-1"`) {
			t.Errorf("%s: %d %s %v", at, status, body, err)
		}
		r := web.recorded("the call to "+at, func(r *record) bool { return r.Original == at && r.Path == "/hello" })
		if r.Cluster != "api" || r.UpstreamID != spiffe("api") || r.Endpoint != "10.8.1.1:20000" {
			t.Errorf("the record is %+v", r)
		}
	}
	for host, at := range v.outside {
		if got, err := chat(at, "hello"); err != nil || got != "outside\nhello" {
			t.Errorf("%s at %s: %q %v", host, at, got, err)
		}
	}
	web.intercepted(2, "virtual")
	web.intercepted(1, "direct")
	web.intercepted(2, "passthrough")
	web.rewrite(sections{"outbound": outboundTransparent("{unknown: refuse}", `[{service: api, addresses: ["240.0.0.5"], direct: true}]`)})
	for _, at := range v.outside {
		eventually(t, patience, "unknown destinations are refused", func() (bool, string) {
			got, err := chat(at, "hello")
			return errors.Is(err, syscall.ECONNRESET), fmt.Sprintf("%q %v", got, err)
		})
	}
	if status, body, err := fetchOnce("http://240.0.0.5/"); err != nil || status != http.StatusOK {
		t.Errorf("the upstream: %d %s %v", status, body, err)
	}
}
