package intercept

import (
	"encoding/binary"
	"errors"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of a routing rule (linux/fib_rules.h).
const (
	fraPriority = 6
	fraFwmark   = 10
	fraTable    = 15
	actToTable  = 1
	// rulePriority is before the rule of the main table (32766).
	rulePriority = 20309
)

// routes says for IPv4 and IPv6 that packets with the mark are delivered on
// this machine, whatever their destination: a routing rule that leads to a
// table with one local route. If on is false it takes both away again.
func (k kernel) routes(mark uint32, on bool) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: k.ns.fd()})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	n32 := func(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
	send := func(kind netlink.HeaderType, flags netlink.HeaderFlags, head []byte, list []netlink.Attribute) error {
		data, err := netlink.MarshalAttributes(list)
		if err != nil {
			return err
		}
		_, err = conn.Execute(netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge | flags},
			Data:   append(head, data...),
		})
		return err
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		route := []byte{family, 0, 0, 0, unix.RT_TABLE_UNSPEC, unix.RTPROT_STATIC, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0}
		way := []netlink.Attribute{{Type: unix.RTA_TABLE, Data: n32(mark)}, {Type: unix.RTA_OIF, Data: n32(1)}} // lo is always the first
		rule := []byte{family, 0, 0, 0, unix.RT_TABLE_UNSPEC, 0, 0, actToTable, 0, 0, 0, 0}
		which := []netlink.Attribute{{Type: fraPriority, Data: n32(rulePriority)}, {Type: fraFwmark, Data: n32(mark)}, {Type: fraTable, Data: n32(mark)}}
		if on {
			err := send(unix.RTM_NEWROUTE, netlink.Create|netlink.Replace, route, way)
			if err == nil {
				err = send(unix.RTM_NEWRULE, netlink.Create|netlink.Excl, rule, which)
			}
			if err != nil && !errors.Is(err, unix.EEXIST) && !noIPv6(family, err) {
				return err
			}
			continue
		}
		for _, err := range []error{send(unix.RTM_DELRULE, 0, rule, which), send(unix.RTM_DELROUTE, 0, route, way)} {
			if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) && !noIPv6(family, err) {
				return err
			}
		}
	}
	return nil
}

// noIPv6 reports whether err is that of a namespace in which IPv6 is off.
func noIPv6(family byte, err error) bool {
	return family == unix.AF_INET6 && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV))
}

// routed reports whether the routing rules are there, for IPv4.
func (k kernel) routed(mark uint32) (bool, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: k.ns.fd()})
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	msgs, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	})
	if err != nil {
		return false, err
	}
	for _, m := range msgs {
		if len(m.Data) < 12 {
			continue
		}
		a, err := parseAttrs(m.Data[12:])
		if err != nil {
			return false, err
		}
		if b := a[fraFwmark]; len(b) == 4 && binary.NativeEndian.Uint32(b) == mark {
			return true, nil
		}
	}
	return false, nil
}
