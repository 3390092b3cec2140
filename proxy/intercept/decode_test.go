package intercept

import (
	"net/netip"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// written is a rule's expressions in the form that the kernel would tell.
func written(t testing.TB, r Rule, f Family) []byte {
	t.Helper()
	family := map[Family]byte{Inet: unix.NFPROTO_INET, IP: unix.NFPROTO_IPV4, IP6: unix.NFPROTO_IPV6}[f]
	var list []netlink.Attribute
	for _, e := range encode(r, f) {
		b, err := expr.Marshal(family, e)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: b})
	}
	b, err := netlink.MarshalAttributes(list)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// every are the rules of all kinds, each with its family.
func every() map[Family][]Rule {
	m := map[Family][]Rule{}
	for _, mode := range []Mode{Redirect, TProxy} {
		for _, ready := range []BeforeReady{Hold, Refuse} {
			c := everything()
			c.Mode, c.BeforeReady = mode, ready
			for _, can := range []Support{{true, true}, {false, true}} {
				for _, t := range Build(c, []Group{{"/a", 5, 1}}, can) {
					for _, ch := range t.Chains {
						m[t.Family] = append(m[t.Family], ch.Rules...)
					}
				}
			}
		}
	}
	return m
}

// Without a kernel: what is encoded is decoded as it was.
func TestDecodeIsEncodeBackwards(t *testing.T) {
	for f, rules := range every() {
		for _, r := range rules {
			got := decodeRule(attrs{unix.NFTA_RULE_EXPRESSIONS: written(t, r, f)})
			if got.String() != r.String() || got.Unknown != "" {
				t.Errorf("%s: %s became %s", f, r, got)
			}
		}
	}
}

// What another program has written and we do not understand is named, and is
// never taken for a rule that says less.
func TestDecodeNamesWhatItDoesNotKnow(t *testing.T) {
	for name, list := range map[string][]expr.Any{
		"limit":                {&expr.Limit{Type: expr.LimitTypePkts, Rate: 1}},
		"lookup":               {&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, &expr.Lookup{SourceRegister: 1, SetName: "s"}},
		"payload":              {&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 80}}},
		"meta 10":              {&expr.Meta{Key: expr.MetaKeySKUID, Register: 1}, &expr.Meta{Key: 10 + 200, Register: 1}},
		"a comparison":         {&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: []byte{6}}},
		"a verdict":            {&expr.Verdict{Kind: expr.VerdictQueue}},
		"a redirection":        {&expr.Redir{}},
		"a value that":         {&expr.Redir{RegisterProtoMin: 2}},
		"a rejection other":    {&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 1}},
		"what is outside":      {&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Range{Op: expr.CmpOpNeq, Register: 1, FromData: []byte{1}, ToData: []byte{2}}},
		"a comparison with a ": {&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{4}, Xor: []byte{0}}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{4}}},
	} {
		var attributes []netlink.Attribute
		for _, e := range append(list, &expr.Verdict{Kind: expr.VerdictAccept}) {
			b, err := expr.Marshal(unix.NFPROTO_INET, e)
			if err != nil {
				t.Fatal(err)
			}
			attributes = append(attributes, netlink.Attribute{Type: unix.NFTA_LIST_ELEM, Data: b})
		}
		b, err := netlink.MarshalAttributes(attributes)
		if err != nil {
			t.Fatal(err)
		}
		if r := decodeRule(attrs{unix.NFTA_RULE_EXPRESSIONS: b}); r.Unknown == "" {
			t.Errorf("%s: taken for %q", name, r)
		}
	}
}

func FuzzDecodeRule(f *testing.F) {
	for family, rules := range every() {
		for _, r := range rules[:12] {
			f.Add(written(f, r, family), []byte("\x00\x03hi\x00"))
		}
	}
	f.Fuzz(func(t *testing.T, expressions, data []byte) {
		r := decodeRule(attrs{unix.NFTA_RULE_EXPRESSIONS: expressions, unix.NFTA_RULE_USERDATA: data})
		_ = r.String()
		table := Table{Family: Inet, Name: "t", Chains: []Chain{{Name: "c", Hook: Output, Type: "nat", Rules: []Rule{r}}}}
		Walk([]Table{table}, Packet{
			Proto: "tcp", Src: netip.MustParseAddrPort("10.0.0.1:1"), Dst: netip.MustParseAddrPort("10.0.0.5:80"),
			Local: func(netip.Addr) bool { return false },
		})
	})
}

func FuzzListeners(f *testing.F) {
	f.Add("  sl  local_address rem_address   st\n   0: 0100007F:3A99 00000000:0000 0A 0\n   1: 00000000000000000000000001000000:3A99 0:0 0A 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, l := range parseListeners(text) {
			if !l.IsValid() {
				t.Errorf("%v", l)
			}
		}
	})
}

func TestListeners(t *testing.T) {
	if !littleEndian() {
		t.Skip("the example is of a little-endian machine")
	}
	text := "  sl  local_address rem_address   st\n   0: 0100007F:3A99 00000000:0000 0A 0\n   1: 00000000000000000000000001000000:3A99 00000000000000000000000000000000:0000 0A 0\n   2: 0100007F:0050 0100007F:1234 01 0\n"
	got := parseListeners(text)
	if len(got) != 2 || got[0].String() != "127.0.0.1:15001" || got[1].String() != "[::1]:15001" {
		t.Errorf("%v", got)
	}
}
