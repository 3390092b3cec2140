package config

import (
	"net/netip"
	"testing"
)

func TestParseVirtual(t *testing.T) {
	for text, want := range map[string]string{
		"240.0.0.2": "240.0.0.2:0", "::ffff:240.0.0.2": "240.0.0.2:0", "fd40::5": "[fd40::5]:0",
		"10.96.5.5:80": "10.96.5.5:80", "[fd40::5]:80": "[fd40::5]:80", "127.0.0.9:1": "127.0.0.9:1",
	} {
		if got, err := ParseVirtual(text); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "api", "240.0.0.2:0", "240.0.0.2:", "240.0.0.0/4", "0.0.0.0", "[::]:80", "224.0.0.1", "fe80::1%eth0", "[fe80::1%eth0]:80", "240.0.0.2:65536"} {
		if got, err := ParseVirtual(text); err == nil {
			t.Errorf("%s is read as %v", text, got)
		}
	}
}

// What is read can be looked up: it has no zone and is not IPv4 in disguise.
func FuzzParseVirtual(f *testing.F) {
	for _, s := range []string{"240.0.0.2", "[fd40::5]:80", "::ffff:1.2.3.4", "fe80::1%x", "1.2.3.4:99"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseVirtual(s)
		if err != nil {
			return
		}
		if !a.Addr().IsValid() || a.Addr() != a.Addr().Unmap() || a.Addr().Zone() != "" || a.Addr().IsUnspecified() {
			t.Errorf("%q is read as %v", s, a)
		}
		text := a.String()
		if a.Port() == 0 {
			text = a.Addr().String()
		}
		if again, err := ParseVirtual(text); err != nil || again != a {
			t.Errorf("%q is read as %v, which is read as %v, %v", s, a, again, err)
		}
	})
}

func TestTwin(t *testing.T) {
	for listen, want := range map[string]netip.AddrPort{
		"127.0.0.1:15001": netip.MustParseAddrPort("[::1]:15001"),
		"127.0.0.1:0":     {}, "0.0.0.0:15001": {}, "[::1]:15001": {}, "10.0.0.1:1": {}, "x": {},
	} {
		o := OutboundTransparent{Listen: listen}
		if got, ok := o.Twin(); got != want || ok != want.IsValid() {
			t.Errorf("%s: %v, %v", listen, got, ok)
		}
	}
}
