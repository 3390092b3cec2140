package intercept

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// attrs are the attributes of a netlink message by their numbers.
type attrs map[uint16][]byte

func parseAttrs(b []byte) (attrs, error) {
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return nil, err
	}
	m := attrs{}
	for _, a := range list {
		m[a.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a.Data
	}
	return m, nil
}

// nested returns the attributes within attribute n.
func (a attrs) nested(n uint16) attrs {
	m, err := parseAttrs(a[n])
	if err != nil {
		return attrs{}
	}
	return m
}

// uint reads a number in network order; absent is 0.
func (a attrs) uint(n uint16) (v uint64) {
	for _, b := range a[n] {
		v = v<<8 | uint64(b)
	}
	return v
}

func (a attrs) text(n uint16) string { return strings.TrimRight(string(a[n]), "\x00") }

// data returns the value that a comparison or an assignment holds.
func (a attrs) data(n uint16) []byte { return a.nested(n)[unix.NFTA_DATA_VALUE] }

// symbol is what a register holds: a constant, or something of the packet.
type symbol struct {
	constant []byte
	field    Field
	mask     []byte
	four     bool   // of an IPv4 header
	bits     int    // how many bits of the address were loaded
	level    uint32 // of a control group
	swapped  bool   // brought from host order to network order
}

// decoder reads the expressions of one rule, as the kernel would run them.
type decoder struct {
	rule Rule
	regs map[uint32]*symbol
	open bool // the last condition has only its lower end
}

// decodeRule reads the rule in a message's attributes. What it does not
// understand is named in the rule.
func decodeRule(a attrs) Rule {
	d := decoder{regs: map[uint32]*symbol{}}
	d.rule.Comment = comment(a[unix.NFTA_RULE_USERDATA])
	list, err := netlink.UnmarshalAttributes(a[unix.NFTA_RULE_EXPRESSIONS])
	if err != nil {
		d.unknown("its expressions cannot be read")
	}
	for _, e := range list {
		m, err := parseAttrs(e.Data)
		if err != nil {
			d.unknown("an expression cannot be read")
			continue
		}
		d.expression(m.text(unix.NFTA_EXPR_NAME), m.nested(unix.NFTA_EXPR_DATA))
	}
	return d.rule
}

// comment finds the comment in a rule's user data: type, length, bytes.
func comment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == 0 { // NFTNL_UDATA_RULE_COMMENT
			return strings.TrimRight(string(b[2:2+int(b[1])]), "\x00")
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

func (d *decoder) unknown(what string) {
	if d.rule.Unknown == "" {
		d.rule.Unknown = what
	}
}

func (d *decoder) load(a attrs, dreg uint16, s symbol) { d.regs[uint32(a.uint(dreg))] = &s }

func (d *decoder) do(a Action) { d.rule.Do = append(d.rule.Do, a) }

// constant is the value of the register that attribute n names, of a length.
func (d *decoder) constant(a attrs, n uint16, length int) []byte {
	if s := d.regs[uint32(a.uint(n))]; s != nil && len(s.constant) == length {
		return s.constant
	}
	d.unknown("a value that is not constant")
	return make([]byte, length)
}

func (d *decoder) expression(name string, a attrs) {
	switch name {
	case "counter":
		d.rule.Packets, d.rule.Bytes = a.uint(unix.NFTA_COUNTER_PACKETS), a.uint(unix.NFTA_COUNTER_BYTES)
	case "meta":
		d.meta(a)
	case "ct":
		d.ct(a)
	case "payload":
		d.payload(a)
	case "socket":
		d.socket(a)
	case "fib":
		d.fib(a)
	case "bitwise":
		// Attribute 6 is NFTA_BITWISE_OP; 0 is a mask and an exclusive or.
		s := d.regs[uint32(a.uint(unix.NFTA_BITWISE_SREG))]
		if s == nil || s.constant != nil || a.uint(6) != 0 || slices.ContainsFunc(a.data(unix.NFTA_BITWISE_XOR), func(b byte) bool { return b != 0 }) {
			d.unknown("bitwise")
			return
		}
		masked := *s
		masked.mask = a.data(unix.NFTA_BITWISE_MASK)
		d.load(a, unix.NFTA_BITWISE_DREG, masked)
	case "byteorder":
		s := d.regs[uint32(a.uint(unix.NFTA_BYTEORDER_SREG))]
		if s == nil || s.constant != nil {
			d.unknown("byteorder")
			return
		}
		turned := *s
		turned.swapped = true
		d.load(a, unix.NFTA_BYTEORDER_DREG, turned)
	case "cmp":
		d.compare(d.regs[uint32(a.uint(unix.NFTA_CMP_SREG))], a.uint(unix.NFTA_CMP_OP), a.data(unix.NFTA_CMP_DATA))
	case "range":
		s := d.regs[uint32(a.uint(unix.NFTA_RANGE_SREG))]
		if a.uint(unix.NFTA_RANGE_OP) != unix.NFT_RANGE_EQ {
			d.unknown("what is outside a range")
			return
		}
		d.compare(s, unix.NFT_CMP_GTE, a.data(unix.NFTA_RANGE_FROM_DATA))
		d.compare(s, unix.NFT_CMP_LTE, a.data(unix.NFTA_RANGE_TO_DATA))
	case "immediate":
		if a.uint(unix.NFTA_IMMEDIATE_DREG) == unix.NFT_REG_VERDICT {
			d.verdict(a.nested(unix.NFTA_IMMEDIATE_DATA).nested(unix.NFTA_DATA_VERDICT))
			return
		}
		d.load(a, unix.NFTA_IMMEDIATE_DREG, symbol{constant: a.data(unix.NFTA_IMMEDIATE_DATA)})
	case "redir":
		if a[unix.NFTA_REDIR_REG_PROTO_MIN] == nil {
			d.unknown("a redirection without a port")
			return
		}
		d.do(Action{Verb: RedirectTo, Port: binary.BigEndian.Uint16(d.constant(a, unix.NFTA_REDIR_REG_PROTO_MIN, 2))})
	case "nat":
		d.nat(a)
	case "tproxy":
		if a[2] != nil { // NFTA_TPROXY_REG_ADDR
			d.unknown("tproxy to an address")
			return
		}
		d.do(Action{Verb: TProxyTo, Port: binary.BigEndian.Uint16(d.constant(a, 3, 2))})
	case "reject":
		if a.uint(unix.NFTA_REJECT_TYPE) != unix.NFT_REJECT_TCP_RST {
			d.unknown("a rejection other than by a reset")
			return
		}
		d.do(Action{Verb: Reset})
	default:
		d.unknown(name)
	}
}

func (d *decoder) meta(a attrs) {
	key := a.uint(unix.NFTA_META_KEY)
	if a[unix.NFTA_META_SREG] != nil {
		if key != unix.NFT_META_MARK {
			d.unknown(fmt.Sprintf("setting meta %d", key))
			return
		}
		d.do(Action{Verb: SetMark, Mark: binary.NativeEndian.Uint32(d.constant(a, unix.NFTA_META_SREG, 4))})
		return
	}
	f := map[uint64]Field{
		unix.NFT_META_NFPROTO: NFProto, unix.NFT_META_L4PROTO: L4Proto, unix.NFT_META_SKUID: UID, unix.NFT_META_SKGID: GID, unix.NFT_META_IIFNAME: InInterface,
	}[key]
	if f == "" {
		d.unknown(fmt.Sprintf("meta %d", key))
	}
	d.load(a, unix.NFTA_META_DREG, symbol{field: f})
}

func (d *decoder) ct(a attrs) {
	key := a.uint(unix.NFTA_CT_KEY)
	if a[unix.NFTA_CT_SREG] != nil {
		if key != unix.NFT_CT_MARK {
			d.unknown(fmt.Sprintf("setting ct %d", key))
			return
		}
		d.do(Action{Verb: SetCtMark, Mark: binary.NativeEndian.Uint32(d.constant(a, unix.NFTA_CT_SREG, 4))})
		return
	}
	f := map[uint64]Field{unix.NFT_CT_DIRECTION: CtDirection, unix.NFT_CT_STATE: CtState, unix.NFT_CT_STATUS: CtStatus, unix.NFT_CT_MARK: CtMark}[key]
	if f == "" {
		d.unknown(fmt.Sprintf("ct %d", key))
	}
	d.load(a, unix.NFTA_CT_DREG, symbol{field: f})
}

func (d *decoder) payload(a attrs) {
	base, offset, size := a.uint(unix.NFTA_PAYLOAD_BASE), a.uint(unix.NFTA_PAYLOAD_OFFSET), int(a.uint(unix.NFTA_PAYLOAD_LEN))
	s := symbol{bits: size * 8}
	switch {
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 2 && size == 2:
		s.field = DestPort
	case base != unix.NFT_PAYLOAD_NETWORK_HEADER:
	case (offset == 12 || offset == 16) && size <= 4:
		s.field, s.four = pick(offset == 12, Source, Dest), true
	case (offset == 8 || offset == 24) && size <= 16:
		s.field = pick(offset == 8, Source, Dest)
	}
	if s.field == "" || a[unix.NFTA_PAYLOAD_SREG] != nil {
		d.unknown("payload")
	}
	d.load(a, unix.NFTA_PAYLOAD_DREG, s)
}

func (d *decoder) socket(a attrs) {
	s := symbol{}
	switch a.uint(1) { // NFTA_SOCKET_KEY
	case 0: // transparent
		s.field = Listener
	case 3: // cgroupv2
		s.field, s.level = Cgroup, uint32(a.uint(3))
	default:
		d.unknown("socket")
	}
	d.load(a, 2, s)
}

func (d *decoder) fib(a attrs) {
	flags := a.uint(unix.NFTA_FIB_FLAGS)
	s := symbol{field: pick(flags == unix.NFTA_FIB_F_DADDR, LocalDest, LocalSource)}
	if a.uint(unix.NFTA_FIB_RESULT) != unix.NFT_FIB_RESULT_ADDRTYPE || flags != unix.NFTA_FIB_F_DADDR && flags != unix.NFTA_FIB_F_SADDR {
		d.unknown("fib")
	}
	d.load(a, unix.NFTA_FIB_DREG, s)
}

func (d *decoder) nat(a attrs) {
	min, max := a.uint(unix.NFTA_NAT_REG_ADDR_MIN), a.uint(unix.NFTA_NAT_REG_ADDR_MAX)
	if a.uint(unix.NFTA_NAT_TYPE) != unix.NFT_NAT_DNAT || min == 0 || max != 0 && max != min || a[unix.NFTA_NAT_REG_PROTO_MIN] == nil {
		d.unknown("nat")
		return
	}
	size := pick(a.uint(unix.NFTA_NAT_FAMILY) == unix.NFPROTO_IPV4, 4, 16)
	addr, _ := netip.AddrFromSlice(d.constant(a, unix.NFTA_NAT_REG_ADDR_MIN, size))
	port := binary.BigEndian.Uint16(d.constant(a, unix.NFTA_NAT_REG_PROTO_MIN, 2))
	d.do(Action{Verb: DNATTo, To: netip.AddrPortFrom(addr, port)})
}

func (d *decoder) verdict(a attrs) {
	chain := a.text(unix.NFTA_VERDICT_CHAIN)
	switch int32(a.uint(unix.NFTA_VERDICT_CODE)) {
	case unix.NFT_RETURN:
		d.do(Action{Verb: Return})
	case unix.NFT_JUMP:
		d.do(Action{Verb: Jump, Chain: chain})
	case unix.NFT_GOTO:
		d.do(Action{Verb: Goto, Chain: chain})
	case 0: // NF_DROP
		d.do(Action{Verb: Drop})
	case 1: // NF_ACCEPT
		d.do(Action{Verb: Accept})
	default:
		d.unknown("a verdict")
	}
}

// compare notes the condition that a comparison makes.
func (d *decoder) compare(s *symbol, op uint64, data []byte) {
	if s == nil || s.constant != nil || s.field == "" {
		d.unknown("a comparison")
		return
	}
	open := d.open
	d.open = false
	m := Match{Field: s.field, Not: op == unix.NFT_CMP_NEQ, Level: s.level}
	exact := op == unix.NFT_CMP_EQ || op == unix.NFT_CMP_NEQ
	n := number(data, s)
	switch {
	case s.field == Listener && op == unix.NFT_CMP_LTE && n == 1, (s.field == LocalDest || s.field == LocalSource) && exact && n == unix.RTN_LOCAL:
	case s.field == Source || s.field == Dest:
		if !exact || !d.prefix(&m, s, data) {
			d.unknown("a comparison of addresses")
		}
	case s.field == InInterface && exact && s.mask == nil:
		m.Name = strings.TrimRight(string(data), "\x00")
	case s.field == CtState || s.field == CtStatus:
		if !exact || n != 0 || len(s.mask) != 4 {
			d.unknown("a comparison of bits")
			return
		}
		m.Not = !m.Not
		m.Lo = uint64(binary.NativeEndian.Uint32(s.mask))
		m.Hi = m.Lo
	case s.mask != nil || s.field == Listener:
		d.unknown("a comparison with a mask")
	case exact:
		m.Lo, m.Hi = n, n
	case op == unix.NFT_CMP_GTE:
		m.Lo, m.Hi, d.open = n, 1<<63, true
	case op == unix.NFT_CMP_LTE && open && d.rule.Match[len(d.rule.Match)-1].Field == s.field:
		d.rule.Match[len(d.rule.Match)-1].Hi = n
		return
	default:
		d.unknown("a comparison")
	}
	d.rule.Match = append(d.rule.Match, m)
}

// prefix reads the addresses of a comparison.
func (d *decoder) prefix(m *Match, s *symbol, data []byte) bool {
	full := make([]byte, pick(s.four, 4, 16))
	if len(data) > len(full) || s.mask != nil && len(s.mask) != len(data) {
		return false
	}
	copy(full, data)
	addr, _ := netip.AddrFromSlice(full)
	n := len(data) * 8
	if s.mask != nil {
		n = 0
		for _, b := range s.mask {
			ones := bits.LeadingZeros8(^b)
			if n += ones; ones < 8 {
				break
			}
		}
	}
	m.Prefix = netip.PrefixFrom(addr, n)
	if m.Prefix != m.Prefix.Masked() {
		return false
	}
	for i, b := range s.mask { // ones first, then zeros
		if want := ^byte(0xff >> max(0, min(8, n-i*8))); b != want {
			return false
		}
	}
	if last := len(d.rule.Match) - 1; last >= 0 && d.rule.Match[last] == (Match{Field: NFProto, Lo: uint64(version(addr)), Hi: uint64(version(addr))}) {
		d.rule.Match = d.rule.Match[:last] // the comparison needs it
	}
	return true
}

// number reads a value in the order of its field.
func number(b []byte, s *symbol) uint64 {
	switch {
	case len(b) == 4 && !s.swapped && s.field != DestPort:
		return uint64(binary.NativeEndian.Uint32(b))
	case len(b) == 8 && !s.swapped:
		return binary.NativeEndian.Uint64(b)
	}
	var v uint64
	for _, x := range b[:min(8, len(b))] {
		v = v<<8 | uint64(x)
	}
	return v
}
