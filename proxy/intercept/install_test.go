package intercept

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// other is a table of somebody else.
func other(name string) Table {
	return Table{Family: Inet, Name: name, Chains: []Chain{{
		Name: "theirs", Hook: Output, Type: "nat", Priority: -100,
		Rules: []Rule{{Match: []Match{tcp, {Field: DestPort, Lo: 9, Hi: 9}}, Do: []Action{{Verb: RedirectTo, Port: 10}}, Comment: "not yours"}},
	}}}
}

func (h *Host) mustStatus(t *testing.T, c Config, want State) Status {
	t.Helper()
	s, err := h.Status(c.Table, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.State != want {
		t.Fatalf("state %s, want %s: %v", s.State, want, s.Differences)
	}
	return s
}

// Installing twice, over what somebody has half removed or changed, and over
// rules of other options leaves the same rules; removing leaves none; tables of
// others are never touched.
func TestInstallIsIdempotent(t *testing.T) {
	h, _ := newHost(t)
	if err := h.k.replace([]Table{other("theirs")}, nil); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []Mode{Redirect, TProxy} {
		c := everything()
		c.Mode = mode
		h.mustStatus(t, c, Missing)
		install := func() string {
			t.Helper()
			if err := h.Install(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			s := h.mustStatus(t, c, Installed)
			if len(s.Differences) > 0 || len(s.Beside) != 1 {
				t.Fatalf("%+v", s)
			}
			return lines(s.Tables)
		}
		first := install()
		if again := install(); again != first {
			t.Errorf("a second time:\n%s\n%s", first, again)
		}
		for name, damage := range map[string]func(*Table){
			"- inet chain prerouting": func(t *Table) {
				t.Chains = slices.DeleteFunc(t.Chains, func(c Chain) bool { return c.Name == chainPrerouting })
			},
			"- inet outbound: tcp dport 3306 return":          func(t *Table) { c := t.Chain(chainOutbound); c.Rules = append(c.Rules[:6:6], c.Rules[7:]...) },
			"+ inet outbound: ip daddr 1.2.3.0/24 tcp accept": func(t *Table) { c := t.Chain(chainOutbound); c.Rules = append(c.Rules, theirRule()) },
			"+ inet chain theirs":                             func(t *Table) { t.Chains = append(t.Chains, Chain{Name: "theirs"}) },
			"does not say":                                    func(t *Table) { t.Chain(chainIntent).Rules = t.Chain(chainIntent).Rules[1:] },
		} {
			half := Build(c, nil, Support{Inet: true, Fib: true})
			damage(&half[0])
			if err := h.k.replace(half, nil); err != nil {
				t.Fatal(name, err)
			}
			s := h.mustStatus(t, c, Changed)
			if got := strings.Join(s.Differences, "\n"); !strings.Contains(got, name) {
				t.Errorf("no %q in %q", name, got)
			}
			if got := install(); got != first {
				t.Errorf("%s is not repaired:\n%s", name, got)
			}
		}
		// A chain may be gone with all that leads to it, and the family be another.
		if err := h.k.replace(Build(c, nil, Support{}), []Table{{Family: Inet, Name: c.Table}}); err != nil {
			t.Fatal(err)
		}
		if got := install(); got != first {
			t.Errorf("tables of other families are not replaced:\n%s", got)
		}
		for i, want := range []bool{true, false} {
			if was, err := h.Remove(c.Table); err != nil || was != want {
				t.Errorf("removal %d: %v %v", i+1, was, err)
			}
		}
		if all, err := h.k.all(); err != nil || len(all) != 1 || lines(all) != lines([]Table{other("theirs")}) {
			t.Errorf("of the other: %v %v", err, lines(all))
		}
	}
}

func theirRule() Rule {
	p, _ := ParseCIDR("1.2.3.0/24")
	return Rule{Match: []Match{prefix(Dest, p), tcp}, Do: []Action{{Verb: Accept}}}
}

// A table of somebody else that has our name is left alone.
func TestForeignTable(t *testing.T) {
	h, _ := newHost(t)
	c := basic(t)
	if err := h.k.replace([]Table{other(c.Table)}, nil); err != nil {
		t.Fatal(err)
	}
	h.mustStatus(t, c, Foreign)
	if err := h.Install(t.Context(), c); err == nil || !strings.Contains(err.Error(), "--table") {
		t.Errorf("install: %v", err)
	}
	if _, err := h.Remove(c.Table); err == nil {
		t.Error("it is removed")
	}
	h.mustStatus(t, c, Foreign)
}

// lacking is a kernel that refuses rules for which what returns an error.
type lacking struct {
	rules
	what   func(Table) error
	tables []Table
}

func (l *lacking) replace(tables, remove []Table) error {
	for _, t := range tables {
		if err := l.what(t); err != nil {
			return fmt.Errorf("conn.Receive: %w", err)
		}
	}
	l.tables = tables
	return nil
}

func (l *lacking) try(f Family, c Chain) error { return l.what(Table{Family: f, Chains: []Chain{c}}) }
func (l *lacking) all() ([]Table, error)       { return nil, nil }
func (l *lacking) routes(uint32, bool) error   { return nil }

// without refuses rules with a verb or field.
func without(verb Verb, field Field) func(Table) error {
	return func(t Table) error {
		for _, c := range t.Chains {
			if slices.ContainsFunc(c.Rules, uses(verb, field)) {
				return unix.ENOENT
			}
		}
		return nil
	}
}

// What a kernel lacks is done without, or named with its module.
func TestKernelLacks(t *testing.T) {
	noInet := func(t Table) error {
		if t.Family == Inet && slices.ContainsFunc(t.Chains, func(c Chain) bool { return c.Type == "nat" }) {
			return unix.EOPNOTSUPP
		}
		return nil
	}
	for _, x := range []struct {
		name   string
		what   func(Table) error
		change func(*Config)
		want   string
	}{
		{"nothing", func(Table) error { return nil }, nil, "inet"},
		{"NAT in inet", noInet, nil, "ip ip6"},
		{"fib", without("", LocalDest), nil, "inet without fib"},
		{"redir", without(RedirectTo, ""), nil, "error: nft_redir"},
		{"tproxy", without(TProxyTo, ""), func(c *Config) { c.Mode = TProxy }, "error: nft_tproxy"},
		{"tproxy, not needed", without(TProxyTo, ""), nil, "inet"},
		{"socket", without("", Listener), func(c *Config) { c.BeforeReady = Hold }, "error: nft_socket"},
		{"nftables", func(Table) error { return unix.EOPNOTSUPP }, nil, "error: nf_tables"},
		{"capability", func(Table) error { return unix.EPERM }, nil, "error: CAP_NET_ADMIN"},
		{"room", func(Table) error { return unix.ENOMEM }, nil, "error: cannot allocate memory"},
	} {
		t.Run(x.name, func(t *testing.T) {
			k := &lacking{what: x.what}
			c := basic(t)
			if x.change != nil {
				x.change(&c)
			}
			err := (&Host{k: k}).Install(t.Context(), c)
			if want, bad := strings.CutPrefix(x.want, "error: "); bad {
				if err == nil || !strings.Contains(err.Error(), want) || k.tables != nil {
					t.Errorf("%v, want an error with %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, t := range k.tables {
				got = append(got, string(t.Family))
			}
			if !slices.ContainsFunc(k.tables, usesFib) {
				got = append(got, "without fib")
			}
			if g := strings.Join(got, " "); g != x.want {
				t.Errorf("%s, want %s", g, x.want)
			}
		})
	}
}

// A probe arrives, whether the proxy is there or not, and tells when it
// does not.
func TestProbe(t *testing.T) {
	n := newNetwork(t)
	c := basic(t)
	c.BeforeReady = Hold
	if err := n.Install(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	probe := func(want string) {
		t.Helper()
		list, err := n.Probe(t.Context(), c)
		if err != nil || len(list) != 2 {
			t.Fatal(list, err)
		}
		for _, p := range list {
			if !strings.Contains(p.Words, want) || p.OK != strings.HasPrefix(want, "arrived") {
				t.Errorf("%+v, want %q", p, want)
			}
		}
	}
	probe("arrived at port 15001 with its original destination")
	n.listen(t, n.pod, "outbound", "127.0.0.1:15001")
	n.listen(t, n.pod, "outbound", "[::1]:15001")
	probe("arrived at the proxy's port 15001")
	// Somebody else's rules come first and let it go elsewhere.
	thief := other("thief")
	thief.Chains[0].Priority = priorityNAT - 1
	thief.Chains[0].Rules = []Rule{{Match: []Match{tcp}, Do: []Action{{Verb: RedirectTo, Port: 20001}}}}
	if err := n.k.replace([]Table{thief}, nil); err != nil {
		t.Fatal(err)
	}
	n.listen(t, n.pod, "thief", "127.0.0.1:20001")
	n.listen(t, n.pod, "thief", "[::1]:20001")
	probe("no rule of ours has seen it")
	if s := n.mustStatus(t, c, Installed); len(s.Beside) != 1 || !strings.Contains(s.Beside[0], "before ours") {
		t.Errorf("beside: %v", s.Beside)
	}
	c.ExcludeOutboundCIDRs = all([]string{"192.0.2.0/24", "2001:db8::/32"}, "", ParseCIDR, new([]error))
	if err := n.Install(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	probe("not sent: by the rules it goes its way by rule")
	c.ProxyUIDs = []Range{{0, 1 << 31}}
	if _, err := n.Probe(t.Context(), c); err == nil {
		t.Error("a probe that is exempt")
	}
}

// The proxy may be known by its control group, and what is below that.
func TestControlGroup(t *testing.T) {
	n := newNetwork(t)
	root, err := groupRoot()
	if err != nil {
		t.Skip(err)
	}
	name := fmt.Sprintf("/outrigger-test-%d", os.Getpid())
	if err := os.MkdirAll(filepath.Join(root, name, "below"), 0o755); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		_ = os.Remove(filepath.Join(root, name, "below"))
		_ = os.Remove(filepath.Join(root, name))
	})
	n.listen(t, n.client, "server", "[::]:80")
	n.listen(t, n.pod, "outbound", "127.0.0.1:15001")
	c := basic(t)
	c.ProxyUIDs, c.ProxyCgroups = nil, []string{name}
	if err := n.Install(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	n.mustStatus(t, c, Installed)
	for group, want := range map[string]string{"/": "outbound 10.0.1.1:80", name: "server 10.0.1.1:80", name + "/below": "server 10.0.1.1:80"} {
		a, err := n.Explain(c.Table, Question{Proto: "tcp", To: outPacket("10.0.1.1:80").Dst, Cgroup: group})
		if err != nil || (a.Trace.Fate == Redirected) != (group == "/") {
			t.Errorf("%s: %v %+v", group, err, a)
		}
		var out []byte
		err = n.pod.Do(func() (err error) {
			cmd := exec.Command("sh", "-c", `echo $$ >"$1/cgroup.procs" && exec "$2" -test.run='^TestAsChild$'`, "sh", filepath.Join(root, group), os.Args[0])
			cmd.Env = append(os.Environ(), "INTERCEPT_CHILD=10.0.1.1:80")
			out, err = cmd.CombinedOutput()
			return err
		})
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("in %s: %v %s, want %q", group, err, out, want)
		}
	}
	// A group that was made anew has another number: the rule is for nobody.
	_ = os.Remove(filepath.Join(root, name, "below"))
	if err := os.Remove(filepath.Join(root, name)); err != nil {
		t.Fatal(err)
	}
	if s := n.mustStatus(t, c, Changed); !strings.Contains(strings.Join(s.Differences, "\n"), "is not there") {
		t.Errorf("%v", s.Differences)
	}
}

// TestAsChild is what TestControlGroup starts in a control group.
func TestAsChild(t *testing.T) {
	to := os.Getenv("INTERCEPT_CHILD")
	if to == "" {
		t.Skip("only as a child of TestControlGroup")
	}
	fmt.Println(tell(to))
}

// What is not a network namespace is said to be none, and no right is said to
// be lacking.
func TestNamespace(t *testing.T) {
	if _, err := OpenNamespace("/proc/self/ns/mnt"); err == nil || !strings.Contains(err.Error(), "is none") {
		t.Error(err)
	}
	if _, err := OpenNamespace("/no/such"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	_, ns := newHost(t)
	n, err := OpenNamespace(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	local, err := n.Local()
	if err != nil || !local(outPacket("127.0.0.1:1").Dst.Addr()) || local(outPacket("10.0.0.1:1").Dst.Addr()) {
		t.Errorf("addresses: %v", err)
	}
	if err := n.Do(func() error { return context.Canceled }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
