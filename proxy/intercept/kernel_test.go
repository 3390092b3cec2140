package intercept

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// everything is a configuration that makes rules of every kind.
func everything() Config {
	c := Config{
		ProxyUIDs: []Range{{5995, 5995}}, ProxyGIDs: []Range{{5995, 5999}}, InboundPort: 20000, BeforeReady: Hold,
		ExcludeInboundPorts: []Range{{21000, 21000}, {20200, 20210}}, ExcludeInboundCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/17"), netip.MustParsePrefix("fd01::/18")},
		IncludeInboundPorts: []Range{{80, 90}, {443, 443}}, ExcludeOutboundPorts: []Range{{3306, 3306}}, ExcludeUIDs: []Range{{5996, 5996}, {70, 79}},
		ExcludeOutboundCIDRs: []netip.Prefix{netip.MustParsePrefix("169.254.169.254/32"), netip.MustParsePrefix("fd00:1::/64")},
		IncludeUIDs:          []Range{{0, 60000}}, IncludeOutboundPorts: []Range{{1, 9999}}, IncludeOutboundCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
		DNSTo: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8600"), netip.MustParseAddrPort("[::1]:8600")}, DNSServers: []netip.Addr{netip.MustParseAddr("10.0.0.10"), netip.MustParseAddr("fd00::10")},
	}
	if err := c.Complete(); err != nil {
		panic(err)
	}
	return c
}

func newHost(t *testing.T) (*Host, *testkit.NetNS) {
	t.Helper()
	ns := testkit.NewNetNS(t)
	h := NewHost(&Namespace{ns.File})
	if lack := missing(h.k, Build(everything(), nil, Support{Inet: true, Fib: true})); len(lack) > 0 {
		testkit.Missing(t, fmt.Sprintf("this kernel lacks %v", lack))
	}
	return h, ns
}

// What is written comes back as it was, in tables of every family and in every
// mode.
func TestKernelKeepsRules(t *testing.T) {
	h, _ := newHost(t)
	tproxy := everything()
	tproxy.Mode = TProxy
	refuse := tproxy
	refuse.BeforeReady, refuse.DNSServers, refuse.IncludeOutboundCIDRs = Refuse, nil, refuse.IncludeOutboundCIDRs[:1]
	for _, c := range []Config{everything(), tproxy, refuse} {
		for _, can := range []Support{{true, true}, {true, false}, {false, true}} {
			want := Build(c, []Group{{"/a/b", 77, 2}}, can)
			if err := h.k.replace(want, nil); err != nil {
				t.Fatalf("%+v: %v", can, err)
			}
			got, err := h.k.all()
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				g := slices.IndexFunc(got, func(t Table) bool { return t.Family == want[i].Family })
				if g < 0 {
					t.Fatalf("no table of family %s", want[i].Family)
				}
				if w, g := strings.Join(want[i].Lines(true), "\n"), strings.Join(got[g].Lines(true), "\n"); w != g {
					t.Errorf("%+v\nwritten:\n%s\n\nread:\n%s", can, w, g)
				}
				if back, err := Intent(&got[g]); err != nil || back.encode() != c.encode() {
					t.Errorf("intent: %v %v", back, err)
				}
			}
			if err := h.k.replace(nil, want); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left, err := h.k.all(); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}
