package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/proxy/intercept"
)

// Exit codes of "outrigger intercept status".
const (
	exitMissing = 3
	exitChanged = 4
)

func newInterceptStatusCommand() *cobra.Command {
	var f interceptFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether the rules are there, and as they were meant",
		Long: `Read the rules from the kernel and compare them with what was meant: with the
options given here, as for install, or without any with what the table says of
itself. What differs is shown line by line, and how many packets met each rule
that leads somewhere.

The exit code is 0 where the rules are as they were meant, 3 where there are
none, 4 where they are not as they were meant.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			c, given, err := f.config(cmd.Context())
			if err == nil && given {
				err = c.Complete()
			}
			if err != nil {
				return err
			}
			return onHost(c, func(h *intercept.Host) error {
				var want *intercept.Config
				if given {
					want = &c
				}
				s, err := h.Status(interceptTable(f.table), want)
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(cmd, s)
				} else {
					err = printInterceptStatus(cmd.OutOrStdout(), interceptTable(f.table), s)
				}
				switch {
				case err != nil:
					return err
				case s.State == intercept.Missing:
					return &exitCode{exitMissing, errors.New("there are no rules in this network namespace")}
				case s.State != intercept.Installed:
					return &exitCode{exitChanged, fmt.Errorf("the rules are not as they were meant (%s): outrigger intercept install repairs them", s.State)}
				}
				return nil
			})
		},
	}
	f.place(cmd)
	f.rules(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printInterceptStatus(w io.Writer, name string, s intercept.Status) error {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s: %s\n", name, s.State)
	if s.Config != nil && s.State != intercept.Missing {
		fmt.Fprintf(&b, "  %s\n", interceptSummary(*s.Config))
	}
	for _, p := range slices.Sorted(maps.Keys(s.Listening)) {
		word := "somebody listens"
		if !s.Listening[p] {
			word = "nobody listens"
		}
		fmt.Fprintf(&b, "  port %d: %s\n", p, word)
	}
	for _, d := range s.Differences {
		fmt.Fprintf(&b, "  %s\n", d)
	}
	if len(s.Counters) > 0 {
		fmt.Fprintf(&b, "\n%10s  %s\n", "PACKETS", "RULE")
		for _, c := range s.Counters {
			if c.Comment != "" {
				fmt.Fprintf(&b, "%10d  %s: %s  # %s\n", c.Packets, c.Chain, c.Rule, c.Comment)
			}
		}
	}
	if len(s.Beside) > 0 {
		fmt.Fprintf(&b, "\nOthers at the same hooks:\n")
		for _, x := range s.Beside {
			fmt.Fprintf(&b, "  %s\n", x)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func newInterceptVerifyCommand() *cobra.Command {
	var f interceptFlags
	var asJSON, inbound, udp, all bool
	var from, to string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Send a probe through the rules, or explain what they make of a packet",
		Long: `Without --to, check that the rules are as they were meant and make a connection
to an address that is nobody's, by IPv4 and IPv6: it must arrive at the proxy's
port. Where nobody listens there yet the probe does, and looks at the original
destination too.

With --to, tell what the rules, as the kernel has them now, make of the first
packet of a connection: which of them acts, and why. Nothing is sent.`,
		Example: `  outrigger intercept verify
  outrigger intercept verify --from uid=1000 --to 10.0.0.5:80
  outrigger intercept verify --from uid=5995 --to 10.0.0.10:53 --udp
  outrigger intercept verify --in --from addr=10.0.0.9 --to 10.0.0.7:8080 --all`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			name := interceptTable(f.table)
			return onHost(intercept.Config{NetNS: f.netns}, func(h *intercept.Host) error {
				if to == "" {
					return probeIntercept(cmd, h, name, asJSON)
				}
				q := intercept.Question{In: inbound, Proto: "tcp"}
				if udp {
					q.Proto = "udp"
				}
				if err := parsePacket(&q, from, to); err != nil {
					return err
				}
				a, err := h.Explain(name, q)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd, a)
				}
				return printAnswer(cmd.OutOrStdout(), a, all)
			})
		},
	}
	f.place(cmd)
	cmd.Flags().StringVar(&from, "from", "", "who sends the packet: `uid=N,gid=N,cgroup=PATH,addr=ADDR`, each only where it is known")
	cmd.Flags().StringVar(&to, "to", "", "where the packet goes, `ADDR:PORT`")
	cmd.Flags().BoolVar(&inbound, "in", false, "the packet comes from outside")
	cmd.Flags().BoolVar(&udp, "udp", false, "the packet is UDP")
	cmd.Flags().BoolVar(&all, "all", false, "show also the rules that the packet does not meet, each with the reason")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// parsePacket reads who sends a packet, and where it goes.
func parsePacket(q *intercept.Question, from, to string) (err error) {
	if q.To, err = netip.ParseAddrPort(to); err != nil {
		return fmt.Errorf("--to %s: give an address and a port, such as 10.0.0.5:80", to)
	}
	q.To = netip.AddrPortFrom(q.To.Addr().Unmap(), q.To.Port())
	for part := range strings.FieldsFuncSeq(from, func(r rune) bool { return r == ',' }) {
		key, value, _ := strings.Cut(part, "=")
		var id uint64
		switch key {
		case "uid", "gid":
			if id, err = strconv.ParseUint(value, 10, 32); err != nil {
				return fmt.Errorf("--from %s: give a number", part)
			}
			if key == "uid" {
				q.UID = uint32(id)
			} else {
				q.GID = uint32(id)
			}
		case "cgroup":
			q.Cgroup = value
		case "addr":
			if q.From, err = netip.ParseAddr(value); err != nil || q.From.Is4() != q.To.Addr().Is4() {
				return fmt.Errorf("--from %s: give an address of the same IP version as --to", part)
			}
		default:
			return fmt.Errorf("--from %s: give uid=N, gid=N, cgroup=PATH or addr=ADDR", part)
		}
	}
	return nil
}

func printAnswer(w io.Writer, a intercept.Answer, all bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n  %s\n\n", a.Packet, a.Verdict)
	for _, s := range a.Trace.Steps {
		mark := "*"
		if !s.Met {
			if mark = " "; !all {
				continue
			}
		}
		fmt.Fprintf(&b, "%s %s #%d: %s", mark, s.Chain, s.Number, s.Rule)
		if s.Comment != "" {
			fmt.Fprintf(&b, "  # %s", s.Comment)
		}
		if s.Why != "" {
			fmt.Fprintf(&b, "  (not: %s)", s.Why)
		}
		b.WriteString("\n")
	}
	for _, n := range a.Notes {
		fmt.Fprintf(&b, "\n%s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// probeIntercept checks the rules and sends probes through them.
func probeIntercept(cmd *cobra.Command, h *intercept.Host, name string, asJSON bool) error {
	s, err := h.Status(name, nil)
	if err != nil {
		return err
	}
	if s.State == intercept.Missing || s.Config == nil || s.State == intercept.Foreign {
		return fmt.Errorf("table %s: %s; is this the right network namespace (--netns)?", name, s.State)
	}
	probes, err := h.Probe(cmd.Context(), *s.Config)
	if err != nil {
		return err
	}
	ok, bad := 0, 0
	for _, p := range probes {
		switch {
		case p.OK:
			ok++
		case !p.Skipped:
			bad++
		}
	}
	if asJSON {
		err = printJSON(cmd, struct {
			State       intercept.State   `json:"state"`
			Differences []string          `json:"differences,omitempty"`
			Probes      []intercept.Probe `json:"probes"`
		}{s.State, s.Differences, probes})
	} else {
		var b strings.Builder
		fmt.Fprintf(&b, "table %s: %s\n", name, s.State)
		for _, d := range s.Differences {
			fmt.Fprintf(&b, "  %s\n", d)
		}
		for _, p := range probes {
			word := map[bool]string{true: "ok", false: "failed"}[p.OK]
			if p.Skipped {
				word = "skipped"
			}
			fmt.Fprintf(&b, "probe to %s by user %d: %s: %s\n", p.To, p.UID, word, p.Words)
		}
		_, err = io.WriteString(cmd.OutOrStdout(), b.String())
	}
	switch {
	case err != nil:
		return err
	case bad > 0:
		return errors.New("a probe did not arrive at the proxy")
	case s.State != intercept.Installed:
		return &exitCode{exitChanged, errors.New("the rules are not as they were meant")}
	case ok == 0:
		return errors.New("no probe could be sent")
	}
	return nil
}
