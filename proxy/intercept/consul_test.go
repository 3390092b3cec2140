package intercept

import (
	"strings"
	"testing"
)

func TestParseConsul(t *testing.T) {
	for _, x := range []struct{ name, text, want string }{
		{
			"as Kubernetes passes it", `{"ConsulDNSIP":"","ConsulDNSPort":0,"ProxyUserID":"5995","ProxyInboundPort":20000,"ProxyOutboundPort":15001,
			"ExcludeInboundPorts":["21000"],"ExcludeOutboundPorts":["3306","8000:8010"],"ExcludeOutboundCIDRs":["10.0.0.0/8","1.2.3.4","fd00::1/64"],
			"ExcludeUIDs":["5996","10-12"],"NetNS":"/proc/1/ns/net","IptablesProvider":null}`,
			`{"table":"outrigger","proxy_uids":["5995"],"inbound_port":20000,"outbound_port":15001,"mode":"redirect","before_ready":"refuse","exclude_inbound_ports":["21000"],` +
				`"exclude_outbound_ports":["3306","8000-8010"],"exclude_outbound_cidrs":["10.0.0.0/8","1.2.3.4/32","fd00::/64"],"exclude_uids":["5996","10-12"],"mark":20309}`,
		},
		{"the default port, nothing inbound", `{"ProxyUserID":"101"}`, `{"table":"outrigger","proxy_uids":["101"],"outbound_port":15001,"mode":"redirect","before_ready":"refuse","mark":20309}`},
		{"DNS by address", `{"ProxyUserID":"101","ConsulDNSIP":"10.0.0.10"}`, `{"table":"outrigger","proxy_uids":["101"],"outbound_port":15001,"mode":"redirect","before_ready":"refuse","dns_to":["10.0.0.10:53"],"mark":20309}`},
		{"DNS by port", `{"ProxyUserID":"101","ConsulDNSPort":8600}`, `{"table":"outrigger","proxy_uids":["101"],"outbound_port":15001,"mode":"redirect","before_ready":"refuse","dns_to":["127.0.0.1:8600"],"dns_servers":["127.0.0.1"],"mark":20309}`},
		{"DNS by IPv6", `{"ProxyUserID":"101","ConsulDNSIP":"::1","ConsulDNSPort":8600}`, `{"table":"outrigger","proxy_uids":["101"],"outbound_port":15001,"mode":"redirect","before_ready":"refuse","dns_to":["[::1]:8600"],"dns_servers":["::1"],"mark":20309}`},
		{"a user by name", `{"ProxyUserID":"root"}`, `{"table":"outrigger","proxy_uids":["0"],"outbound_port":15001,"mode":"redirect","before_ready":"refuse","mark":20309}`},
		{"no user", `{"ProxyInboundPort":20000}`, `error: nothing says which traffic is the proxy's own`},
		{"an unknown key", `{"ProxyUserID":"1","ExcludeOutboundIPs":["1.2.3.4"]}`, `error: unknown field "ExcludeOutboundIPs"`},
		{"two objects", `{"ProxyUserID":"1"}{}`, `error: something follows`},
		{"a port that is none", `{"ProxyUserID":"1","ProxyInboundPort":70000}`, `error: ProxyInboundPort 70000`},
		{"a range that is none", `{"ProxyUserID":"1","ExcludeInboundPorts":["80-70"]}`, `error: ExcludeInboundPorts: "80-70"`},
		{"a port too high", `{"ProxyUserID":"1","ExcludeInboundPorts":["70000"]}`, `error: exclude-inbound-port 70000`},
		{"a CIDR that is none", `{"ProxyUserID":"1","ExcludeOutboundCIDRs":["10.0.0.0/33"]}`, `error: "10.0.0.0/33" is no CIDR`},
		{"a user that is none", `{"ProxyUserID":"no-such-user-here"}`, `error: "no-such-user-here"`},
		{"one port for both", `{"ProxyUserID":"1","ProxyInboundPort":15001}`, `error: could not tell them apart`},
		{"no JSON", `yes`, `error: the JSON of redirect-traffic`},
	} {
		t.Run(x.name, func(t *testing.T) {
			c, err := ParseConsul(x.text)
			if err == nil {
				err = c.Complete()
			}
			if want, bad := strings.CutPrefix(x.want, "error: "); bad {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want one with %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := c.encode(); got != x.want {
				t.Errorf("got  %s\nwant %s", got, x.want)
			}
			if back, err := decodeConfig(c.encode()); err != nil || back.encode() != c.encode() {
				t.Errorf("read back: %v %v", back, err)
			}
		})
	}
}

// Whatever the JSON is, what comes of it is refused or can be built and kept.
func FuzzParseConsul(f *testing.F) {
	f.Add(`{"ProxyUserID":"5995","ProxyInboundPort":20000,"ExcludeOutboundPorts":["1-2"],"ExcludeOutboundCIDRs":["fd00::/8"],"ConsulDNSPort":53}`)
	f.Add(`{"ProxyUserID":"0","ExcludeUIDs":["4294967295"],"ConsulDNSIP":"::ffff:1.2.3.4"}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConsul(text)
		if err != nil || c.Complete() != nil {
			return
		}
		for _, can := range []Support{{true, true}, {false, false}} {
			for _, table := range Build(c, nil, can) {
				for _, ch := range table.Chains {
					for _, r := range ch.Rules {
						encode(r, table.Family)
					}
				}
				if back, err := Intent(&table); err != nil || back.encode() != c.encode() {
					t.Fatalf("%v: %v", back, err)
				}
			}
		}
	})
}
