package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/proxy/intercept"
)

// Every option that Consul's redirect-traffic has too means the same here;
// options come on top of the JSON of Consul's tools.
func TestInterceptFlags(t *testing.T) {
	for _, x := range []struct {
		name, env, args string
		want            []string
	}{
		{"options", "", "--proxy-uid 5995 --proxy-inbound-port 20000 --proxy-outbound-port 15009 --exclude-inbound-port 21000 --exclude-outbound-port 22,8000-8010 --exclude-outbound-cidr 10.0.0.0/8 --exclude-uid 5996 --consul-dns-ip 10.0.0.10", []string{
			"outbound: meta skuid 5995 return", "outbound: meta skuid 5996 return", "outbound: ip daddr 10.0.0.0/8 return", "outbound: tcp dport 22 return", "outbound: tcp dport 8000-8010 return",
			"outbound_to_proxy: tcp redirect to :15009", "inbound: tcp dport 21000 return", "inbound_to_proxy: tcp redirect to :20000", "dns: meta nfproto ipv4 udp dnat ip to 10.0.0.10:53",
		}},
		{"DNS by port", "", "--proxy-uid 1 --consul-dns-port 8600", []string{"dns: ip daddr 127.0.0.1 tcp dnat ip to 127.0.0.1:8600", "outbound_to_proxy: tcp redirect to :15001"}},
		{"environment", `{"ProxyUserID":"5995","ProxyInboundPort":20000,"ExcludeUIDs":["5996"]}`, "--exclude-uid 7", []string{"outbound: meta skuid 5995 return", "outbound: meta skuid 5996 return", "outbound: meta skuid 7 return", "redirect to :20000"}},
		{"JSON before environment", `{"ProxyUserID":"1"}`, `--config-json {"ProxyUserID":"2"} --proxy-gid 9`, []string{"meta skuid 2 return", "meta skgid 9 return"}},
		{"what only we have", "", "--proxy-gid 3 --proxy-inbound-port 2 --mode tproxy --before-ready hold --include-uid 5 --include-outbound-cidr fd00::/8 --include-inbound-port 80 --exclude-inbound-cidr 1.2.3.4 --table t2 --dns-to [::1]:53 --dns-server fd00::1", []string{
			"table inet t2", "tproxy to :2", "hold: socket", "outbound_only_1: meta skuid 5 goto outbound_only_2", "ip6 daddr fd00::/8", "inbound_only_1: tcp dport 80", "ip saddr 1.2.3.4 return", "ip6 daddr fd00::1 udp dnat ip6 to [::1]:53",
		}},
		{"nobody is the proxy", "", "--proxy-inbound-port 2", []string{"error: --proxy-uid"}},
		{"all mistakes at once", "", "--proxy-uid 1 --mode x --before-ready y --exclude-outbound-cidr z", []string{"error: mode", "error: before-ready", "error: CIDR"}},
		{"an unknown key", `{"ProxyUser":"1"}`, "", []string{`error: unknown field "ProxyUser"`}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Setenv(intercept.ConsulEnv, x.env)
			root := newRoot()
			var out bytes.Buffer
			root.SetOut(&out)
			root.SetArgs(append([]string{"intercept", "install", "--dry-run"}, strings.Fields(x.args)...))
			text := ""
			if err := root.ExecuteContext(t.Context()); err != nil {
				text = err.Error()
			}
			for _, want := range x.want {
				got := out.String()
				if w, bad := strings.CutPrefix(want, "error: "); bad {
					got, want = text, w
				} else if text != "" {
					t.Fatal(text)
				}
				if !strings.Contains(got, want) {
					t.Errorf("no %q in:\n%s", want, got)
				}
			}
		})
	}
}

func TestInterceptPacket(t *testing.T) {
	var q intercept.Question
	if err := parsePacket(&q, "uid=1000,gid=7,cgroup=/a/b,addr=10.0.0.9", "10.0.0.5:80"); err != nil || q.UID != 1000 || q.GID != 7 || q.Cgroup != "/a/b" || q.From.String() != "10.0.0.9" {
		t.Errorf("%+v %v", q, err)
	}
	for _, x := range []struct{ from, to, want string }{
		{"", "10.0.0.5", "--to"},
		{"uid=me", "10.0.0.5:80", "give a number"},
		{"addr=fd00::1", "10.0.0.5:80", "same IP version"},
		{"user=1", "10.0.0.5:80", "give uid=N"},
	} {
		if err := parsePacket(&q, x.from, x.to); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s %s: %v", x.from, x.to, err)
		}
	}
}

// What a proxy's registration in a real Consul says about its ports is what the
// rules have.
func TestInterceptProxyID(t *testing.T) {
	agent := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	agent.Do(t, "PUT", "/v1/agent/service/register", map[string]any{
		"Name": "web", "Port": 8080,
		"Check": map[string]any{"HTTP": "http://127.0.0.1:8080/health", "Interval": "1h"},
		"Connect": map[string]any{"SidecarService": map[string]any{"Port": 20005, "Proxy": map[string]any{
			"Mode": "transparent", "TransparentProxy": map[string]any{"OutboundListenerPort": 15009},
			"Config": map[string]any{"bind_port": 20007, "envoy_prometheus_bind_addr": "0.0.0.0:20200", "envoy_stats_bind_addr": "0.0.0.0:20300"},
			"Expose": map[string]any{"Checks": true, "Paths": []map[string]any{{"Path": "/ready", "LocalPathPort": 8080, "ListenerPort": 20400}}},
		}}},
	})
	t.Setenv("CONSUL_HTTP_ADDR", agent.Address)
	t.Setenv(intercept.ConsulEnv, "")
	for _, x := range []struct {
		args string
		want []string
	}{
		{"--proxy-id web-sidecar-proxy", []string{"redirect to :20007", "redirect to :15009", "inbound: tcp dport 20200 return", "inbound: tcp dport 20300 return", "inbound: tcp dport 20400 return", "inbound: tcp dport 215"}},
		{"--proxy-id web-sidecar-proxy --node-name " + agent.Node, []string{"redirect to :20007", "redirect to :15009", "inbound: tcp dport 20400 return"}},
		{"--proxy-id web-sidecar-proxy --proxy-inbound-port 7", []string{"redirect to :7"}},
		{"--proxy-id web", []string{"error: web-sidecar-proxy"}},
		{"--proxy-id other", []string{"error: the registration of proxy other"}},
		{"--proxy-id other --node-name " + agent.Node, []string{"error: no service with the ID"}},
	} {
		root := newRoot()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(append([]string{"intercept", "install", "--dry-run", "--proxy-uid", "5995"}, strings.Fields(x.args)...))
		err := root.ExecuteContext(t.Context())
		for _, want := range x.want {
			if w, bad := strings.CutPrefix(want, "error: "); bad {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("%s: error %v, want one with %q", x.args, err, w)
				}
				continue
			}
			if err != nil || !strings.Contains(out.String(), want) {
				t.Errorf("%s: %v, no %q in:\n%s", x.args, err, want, out.String())
			}
		}
	}
}
