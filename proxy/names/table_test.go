package names

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func addrs(list ...string) (a []netip.Addr) {
	for _, s := range list {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

func table() *Table {
	return NewTable(Config{Zones: []string{"virtual.consul", "mesh", "eu.virtual.consul"}, TTL: 7 * time.Second}, []Name{
		{Service: "api", Addresses: addrs("240.0.0.2", "2001:db8::2")},
		{Service: "Web", Addresses: addrs("240.0.0.3")},
		{Service: "db", Addresses: addrs("127.0.0.1"), Port: 9002},
		{Service: "web", Addresses: addrs("240.0.0.9")},
		{Service: "a.b", Addresses: addrs("240.0.0.4")},
	})
}

// told writes an answer as text, one record a line.
func told(a Answer) string {
	var b strings.Builder
	switch {
	case !a.Ours:
		return "not ours"
	case !a.Known:
		return "no such name in " + a.Zone
	}
	for _, rr := range append(a.Records, a.Extra...) {
		b.WriteString(strings.Join(strings.Fields(rr.String()), " ") + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func TestAsk(t *testing.T) {
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"api.virtual.consul.", dns.TypeA, "api.virtual.consul. 7 IN A 240.0.0.2"},
		{"API.Virtual.Consul.", dns.TypeAAAA, "API.Virtual.Consul. 7 IN AAAA 2001:db8::2"},
		{"api.virtual.consul.", dns.TypeANY, "api.virtual.consul. 7 IN A 240.0.0.2\napi.virtual.consul. 7 IN AAAA 2001:db8::2"},
		{"api.mesh.", dns.TypeA, "api.mesh. 7 IN A 240.0.0.2"},
		{"web.mesh.", dns.TypeA, "web.mesh. 7 IN A 240.0.0.3"}, // the first of the two
		{"web.mesh.", dns.TypeAAAA, ""},                        // known, and without such an address
		{"a.b.mesh.", dns.TypeA, "a.b.mesh. 7 IN A 240.0.0.4"},
		{"api.eu.virtual.consul.", dns.TypeA, "api.eu.virtual.consul. 7 IN A 240.0.0.2"},
		{"virtual.consul.", dns.TypeA, ""},
		{"nobody.virtual.consul.", dns.TypeA, "no such name in virtual.consul."},
		{"apivirtual.consul.", dns.TypeA, "not ours"},
		{"api.service.consul.", dns.TypeA, "not ours"},
		{"example.org.", dns.TypeA, "not ours"},
		{".", dns.TypeNS, "not ours"},
		{"db.mesh.", dns.TypeSRV, "db.mesh. 7 IN SRV 1 1 9002 db.mesh.\ndb.mesh. 7 IN A 127.0.0.1"},
		{"api.mesh.", dns.TypeSRV, ""},
		{"2.0.0.240.in-addr.arpa.", dns.TypePTR, "2.0.0.240.in-addr.arpa. 7 IN PTR api.eu.virtual.consul."},
		{"2.0.0.240.in-addr.arpa.", dns.TypeA, ""},
		{"1.0.0.127.in-addr.arpa.", dns.TypePTR, "not ours"}, // several services share it
		{
			"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", dns.TypePTR,
			"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 7 IN PTR api.eu.virtual.consul.",
		},
		{"2xx.0.0.240.in-addr.arpa.", dns.TypePTR, "not ours"},
		{"0.0.ip6.arpa.", dns.TypePTR, "not ours"},
	} {
		if got := told(table().Ask(dns.Question{Name: c.name, Qtype: c.kind, Qclass: dns.ClassINET})); got != c.want {
			t.Errorf("%s %s:\n%s\nwant\n%s", c.name, dns.TypeToString[c.kind], got, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	bad := func(change func(*Config)) string {
		c := Default()
		change(&c)
		var b strings.Builder
		c.Validate(func(field, problem string) { b.WriteString(field + " " + problem + "\n") })
		return b.String()
	}
	if got := bad(func(*Config) {}); got != "" {
		t.Errorf("the default: %s", got)
	}
	for want, change := range map[string]func(*Config){
		`zones[0] is "a..b"`:                func(c *Config) { c.Zones = []string{"a..b"} },
		"zones are 65":                      func(c *Config) { c.Zones = make([]string, 65) },
		"ttl is 1.5s":                       func(c *Config) { c.TTL = 1500 * time.Millisecond },
		"timeout is 0s":                     func(c *Config) { c.Timeout = 0 },
		"max_forwarded is 0":                func(c *Config) { c.MaxForwarded = 0 },
		`forward[0] is "dns.example.org"`:   func(c *Config) { c.Forward = []string{"dns.example.org"} },
		"forward are 9 servers":             func(c *Config) { c.Forward = make([]string, 9) },
		"forward_zones.consul names no":     func(c *Config) { c.ForwardZones = map[string][]string{"consul": nil} },
		`forward_zones has the zone ""`:     func(c *Config) { c.ForwardZones = map[string][]string{"": {"127.0.0.1:53"}} },
		`forward_zones.x[0] is "127.0.0.1"`: func(c *Config) { c.ForwardZones = map[string][]string{"x": {"127.0.0.1"}} },
	} {
		if got := bad(change); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
