package intercept

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The registers that are used: the first for what is looked at and for
// addresses, the second for ports beside an address.
const (
	reg1 = unix.NFT_REG_1
	reg2 = unix.NFT_REG_2
)

// encode writes a rule in the kernel's expressions, for a table of the family.
func encode(r Rule, f Family) (list []expr.Any) {
	for _, m := range r.Match {
		list = append(list, encodeMatch(m, f)...)
	}
	list = append(list, &expr.Counter{})
	for _, a := range r.Do {
		list = append(list, encodeAction(a, f)...)
	}
	return list
}

func encodeMatch(m Match, f Family) []expr.Any {
	meta := func(k expr.MetaKey) expr.Any { return &expr.Meta{Key: k, Register: reg1} }
	host := func(n uint64) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }
	octet := func(n uint64) []byte { return []byte{byte(n)} }
	switch m.Field {
	case NFProto:
		return compare(m, meta(expr.MetaKeyNFPROTO), octet)
	case L4Proto:
		return compare(m, meta(expr.MetaKeyL4PROTO), octet)
	case Source, Dest:
		return encodePrefix(m, f)
	case DestPort:
		return compare(m, &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			func(n uint64) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) })
	case UID:
		return compare(m, meta(expr.MetaKeySKUID), host)
	case GID:
		return compare(m, meta(expr.MetaKeySKGID), host)
	case Cgroup:
		return compare(m, &expr.Socket{Key: expr.SocketKeyCgroupv2, Level: m.Level, Register: reg1},
			func(n uint64) []byte { return binary.NativeEndian.AppendUint64(nil, n) })
	case InInterface:
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, m.Name)
		return []expr.Any{meta(expr.MetaKeyIIFNAME), &expr.Cmp{Op: equal(m.Not), Register: reg1, Data: name}}
	case CtDirection:
		return compare(m, &expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg1}, octet)
	case CtState, CtStatus:
		key := pick(m.Field == CtState, expr.CtKeySTATE, expr.CtKeySTATUS)
		return []expr.Any{
			&expr.Ct{Key: key, Register: reg1},
			&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: host(m.Lo), Xor: host(0)},
			&expr.Cmp{Op: equal(!m.Not), Register: reg1, Data: host(0)},
		}
	case CtMark:
		return compare(m, &expr.Ct{Key: expr.CtKeyMARK, Register: reg1}, host)
	case LocalDest, LocalSource:
		return []expr.Any{
			&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagDADDR: m.Field == LocalDest, FlagSADDR: m.Field == LocalSource},
			&expr.Cmp{Op: equal(m.Not), Register: reg1, Data: host(unix.RTN_LOCAL)},
		}
	case Listener:
		return []expr.Any{
			&expr.Socket{Key: expr.SocketKeyTransparent, Register: reg1},
			&expr.Cmp{Op: expr.CmpOpLte, Register: reg1, Data: []byte{1}},
		}
	}
	panic("intercept: no way to write " + string(m.Field))
}

func equal(not bool) expr.CmpOp { return pick(not, expr.CmpOpNeq, expr.CmpOpEq) }

// compare loads a value and compares it with what m has. What is not in a
// range of several numbers cannot be asked for, and never is.
func compare(m Match, load expr.Any, bytes func(uint64) []byte) []expr.Any {
	if m.Lo == m.Hi {
		return []expr.Any{load, &expr.Cmp{Op: equal(m.Not), Register: reg1, Data: bytes(m.Lo)}}
	}
	if m.Field == UID || m.Field == GID { // not big-endian, which comparing needs
		return []expr.Any{
			load, &expr.Byteorder{SourceRegister: reg1, DestRegister: reg1, Op: expr.ByteorderHton, Len: 4, Size: 4},
			&expr.Range{Op: expr.CmpOpEq, Register: reg1, FromData: binary.BigEndian.AppendUint32(nil, uint32(m.Lo)), ToData: binary.BigEndian.AppendUint32(nil, uint32(m.Hi))},
		}
	}
	return []expr.Any{load, &expr.Range{Op: expr.CmpOpEq, Register: reg1, FromData: bytes(m.Lo), ToData: bytes(m.Hi)}}
}

// encodePrefix compares an address, in tables of the family inet after its
// version.
func encodePrefix(m Match, f Family) (list []expr.Any) {
	four := m.Prefix.Addr().Is4()
	if f == Inet {
		version := byte(pick(four, nfIPv4, nfIPv6))
		list = append(list, &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{version}})
	}
	offset := pick[uint32](four, 12, 8)
	size := uint32(m.Prefix.Addr().BitLen() / 8)
	if m.Field == Dest {
		offset += size
	}
	list = append(list, &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size})
	if !m.Prefix.IsSingleIP() {
		mask := make([]byte, size)
		for i := range m.Prefix.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		list = append(list, &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: size, Mask: mask, Xor: make([]byte, size)})
	}
	return append(list, &expr.Cmp{Op: equal(m.Not), Register: reg1, Data: m.Prefix.Addr().AsSlice()})
}

func encodeAction(a Action, f Family) []expr.Any {
	port := func(reg uint32, p uint16) expr.Any {
		return &expr.Immediate{Register: reg, Data: binary.BigEndian.AppendUint16(nil, p)}
	}
	number := func(n uint32) expr.Any {
		return &expr.Immediate{Register: reg1, Data: binary.NativeEndian.AppendUint32(nil, n)}
	}
	switch a.Verb {
	case Return:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
	case Accept:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	case Drop:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	case Jump:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: a.Chain}}
	case Goto:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: a.Chain}}
	case RedirectTo:
		return []expr.Any{port(reg1, a.Port), &expr.Redir{RegisterProtoMin: reg1, RegisterProtoMax: reg1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED}}
	case DNATTo:
		return []expr.Any{
			&expr.Immediate{Register: reg1, Data: a.To.Addr().AsSlice()}, port(reg2, a.To.Port()),
			&expr.NAT{
				Type: expr.NATTypeDestNAT, Family: uint32(version(a.To.Addr())),
				RegAddrMin: reg1, RegAddrMax: reg1, RegProtoMin: reg2, RegProtoMax: reg2, Specified: true,
			},
		}
	case TProxyTo:
		family := byte(map[Family]int{Inet: unix.NFPROTO_UNSPEC, IP: unix.NFPROTO_IPV4, IP6: unix.NFPROTO_IPV6}[f])
		return []expr.Any{port(reg1, a.Port), &expr.TProxy{Family: family, TableFamily: family, RegPort: reg1}}
	case Reset:
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
	case SetMark:
		return []expr.Any{number(a.Mark), &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1}}
	case SetCtMark:
		return []expr.Any{number(a.Mark), &expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: reg1}}
	}
	panic("intercept: no way to write " + string(a.Verb))
}

func version(a netip.Addr) byte { return pick[byte](a.Is4(), nfIPv4, nfIPv6) }
