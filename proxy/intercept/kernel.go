package intercept

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// answerTime bounds how long the kernel is waited for.
const answerTime = 20 * time.Second

// errInterrupted says that the rules changed while they were read.
var errInterrupted = errors.New("the rules changed while they were read")

// kernel is the nftables of one network namespace.
type kernel struct{ ns *Namespace }

// replace puts tables in the place of those of their name, and removes other,
// in one transaction.
func (k kernel) replace(tables []Table, remove []Table) error {
	conn, err := nftables.New(nftables.WithNetNSFd(k.ns.fd()), nftables.WithSockOptions(func(c *netlink.Conn) error {
		_ = c.SetReadBuffer(4 << 20) // every rule is told back; without the room some would be lost
		_ = c.SetWriteBuffer(4 << 20)
		return c.SetDeadline(time.Now().Add(answerTime))
	}))
	if err != nil {
		return err
	}
	// A table that is made first can be removed whether it was there or not.
	for _, t := range slices.Concat(tables, remove) {
		nt := nfTable(t)
		conn.AddTable(nt)
		conn.DelTable(nt)
	}
	for _, t := range tables {
		nt := conn.AddTable(nfTable(t))
		chains := map[string]*nftables.Chain{}
		for _, c := range t.Chains {
			chains[c.Name] = conn.AddChain(nfChain(nt, c))
		}
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				nr := &nftables.Rule{Table: nt, Chain: chains[c.Name], Exprs: encode(r, t.Family)}
				if r.Comment != "" {
					nr.UserData = userdata.AppendString(nil, userdata.TypeComment, r.Comment)
				}
				conn.AddRule(nr)
			}
		}
	}
	return conn.Flush()
}

func nfTable(t Table) *nftables.Table {
	f := map[Family]nftables.TableFamily{Inet: nftables.TableFamilyINet, IP: nftables.TableFamilyIPv4, IP6: nftables.TableFamilyIPv6}[t.Family]
	return &nftables.Table{Name: t.Name, Family: f}
}

func nfChain(t *nftables.Table, c Chain) *nftables.Chain {
	nc := &nftables.Chain{Name: c.Name, Table: t}
	if c.Hook != "" {
		policy := pick(c.Drop, nftables.ChainPolicyDrop, nftables.ChainPolicyAccept)
		nc.Type = nftables.ChainType(c.Type)
		nc.Hooknum = nftables.ChainHookRef(nftables.ChainHook(slices.Index(hooks, c.Hook)))
		nc.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Priority))
		nc.Policy = &policy
	}
	return nc
}

// hooks by the kernel's numbers (NF_INET_PRE_ROUTING and so on).
var hooks = []Hook{Prerouting, Input, Forward, Output, Post}

// all reads every table of the families ip, ip6 and inet.
func (k kernel) all() (tables []Table, err error) {
	for range 10 {
		if tables, err = k.read(); !errors.Is(err, errInterrupted) && !errors.Is(err, unix.EINTR) {
			return tables, err
		}
	}
	return nil, err
}

func (k kernel) read() ([]Table, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: k.ns.fd()})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, err
	}
	var tables []Table
	find := func(family byte, name string) *Table {
		for i := range tables {
			if tables[i].Name == name && tables[i].Family == families[family] {
				return &tables[i]
			}
		}
		return nil
	}
	err = dump(conn, unix.NFT_MSG_GETTABLE, func(family byte, a attrs) {
		if f, ok := families[family]; ok {
			tables = append(tables, Table{Family: f, Name: a.text(unix.NFTA_TABLE_NAME)})
		}
	})
	if err != nil {
		return nil, err
	}
	err = dump(conn, unix.NFT_MSG_GETCHAIN, func(family byte, a attrs) {
		if t := find(family, a.text(unix.NFTA_CHAIN_TABLE)); t != nil {
			t.Chains = append(t.Chains, readChain(a))
		}
	})
	if err != nil {
		return nil, err
	}
	err = dump(conn, unix.NFT_MSG_GETRULE, func(family byte, a attrs) {
		t := find(family, a.text(unix.NFTA_RULE_TABLE))
		if t == nil {
			return
		}
		if c := t.Chain(a.text(unix.NFTA_RULE_CHAIN)); c != nil {
			c.Rules = append(c.Rules, decodeRule(a))
		}
	})
	return tables, err
}

var families = map[byte]Family{unix.NFPROTO_INET: Inet, unix.NFPROTO_IPV4: IP, unix.NFPROTO_IPV6: IP6}

func readChain(a attrs) Chain {
	c := Chain{Name: a.text(unix.NFTA_CHAIN_NAME)}
	if a[unix.NFTA_CHAIN_HOOK] != nil {
		hook := a.nested(unix.NFTA_CHAIN_HOOK)
		if n := hook.uint(unix.NFTA_HOOK_HOOKNUM); n < uint64(len(hooks)) {
			c.Hook = hooks[n]
		}
		c.Priority = int32(uint32(hook.uint(unix.NFTA_HOOK_PRIORITY)))
		c.Type = a.text(unix.NFTA_CHAIN_TYPE)
		c.Drop = a[unix.NFTA_CHAIN_POLICY] != nil && a.uint(unix.NFTA_CHAIN_POLICY) == 0
	}
	return c
}

// dump asks for all objects of a kind and hands each to f.
func dump(conn *netlink.Conn, kind uint16, f func(family byte, a attrs)) error {
	msgs, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: []byte{unix.NFPROTO_UNSPEC, 0, 0, 0},
	})
	if err != nil {
		return err
	}
	for _, m := range msgs {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return errInterrupted
		}
		if len(m.Data) < 4 {
			return fmt.Errorf("a message of %d bytes", len(m.Data))
		}
		a, err := parseAttrs(m.Data[4:])
		if err != nil {
			return err
		}
		f(m.Data[0], a)
	}
	return nil
}

// denied reports whether err means that the capability CAP_NET_ADMIN is
// lacking.
func denied(err error) bool { return errors.Is(err, os.ErrPermission) }

// cannot reports whether err means that the kernel lacks something.
func cannot(err error) bool {
	for _, e := range []error{unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EINVAL, unix.ENOPROTOOPT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
