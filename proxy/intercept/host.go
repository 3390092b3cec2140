package intercept

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// groupRoot finds where control groups of version 2 are.
func groupRoot() (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) > 2 && w[2] == "cgroup2" {
			return w[1], nil
		}
	}
	return "", errors.New("control groups of version 2 are not mounted")
}

// FindGroup returns the control group at a path below the root.
func FindGroup(path string) (Group, error) {
	root, err := groupRoot()
	if err != nil {
		return Group{}, err
	}
	path = "/" + strings.Trim(filepath.Clean("/"+path), "/")
	info, err := os.Stat(filepath.Join(root, path))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Group{}, fmt.Errorf("control group %s is not there: it must exist when the rules are written", path)
		}
		return Group{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Group{}, fmt.Errorf("control group %s has no number", path)
	}
	return Group{Path: path, ID: st.Ino, Level: uint32(strings.Count(path, "/"))}, nil
}

// groupLine returns the ids of the group at path and of those above it, by
// depth.
func groupLine(path string) ([]uint64, error) {
	var ids []uint64
	at := ""
	for _, part := range append([]string{""}, strings.FieldsFunc(path, func(r rune) bool { return r == '/' })...) {
		at += "/" + part
		g, err := FindGroup(at)
		if err != nil {
			return nil, err
		}
		ids = append(ids, g.ID)
	}
	return ids, nil
}

// Local returns what tells whether an address is one of the namespace.
func (n *Namespace) Local() (func(netip.Addr) bool, error) {
	var mine []netip.Addr
	err := n.Do(func() error {
		list, err := net.InterfaceAddrs()
		for _, a := range list {
			if ip, ok := a.(*net.IPNet); ok {
				if addr, ok := netip.AddrFromSlice(ip.IP); ok {
					mine = append(mine, addr.Unmap())
				}
			}
		}
		return err
	})
	return func(a netip.Addr) bool { return a.IsLoopback() || slices.Contains(mine, a) }, err
}

// Listeners returns what tells whether somebody listens on a port of the
// namespace, by TCP.
func (n *Namespace) Listeners() (func(netip.AddrPort) bool, error) {
	var list []netip.AddrPort
	err := n.Do(func() error {
		for _, name := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
			b, err := os.ReadFile(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue // no IPv6
			}
			if err != nil {
				return err
			}
			list = append(list, parseListeners(string(b))...)
		}
		return nil
	})
	return func(to netip.AddrPort) bool {
		return slices.ContainsFunc(list, func(l netip.AddrPort) bool {
			// A socket of IPv6 that listens on all addresses most often takes IPv4 too.
			return l.Port() == to.Port() && (l.Addr() == to.Addr() || to.Addr().IsUnspecified() ||
				l.Addr().IsUnspecified() && (l.Addr().Is6() || to.Addr().Is4()))
		})
	}, err
}

// parseListeners reads the sockets that listen (state 0A) from /proc/net/tcp:
// the local address is in hexadecimal digits, words of four bytes in the
// machine's order.
func parseListeners(text string) (list []netip.AddrPort) {
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) < 4 || w[3] != "0A" {
			continue
		}
		addr, port, _ := strings.Cut(w[1], ":")
		raw, err := hex.DecodeString(addr)
		p, err2 := strconv.ParseUint(port, 16, 16)
		if err != nil || err2 != nil || len(raw)%4 != 0 {
			continue
		}
		if littleEndian() {
			for i := 0; i < len(raw); i += 4 {
				slices.Reverse(raw[i : i+4])
			}
		}
		if a, ok := netip.AddrFromSlice(raw); ok {
			list = append(list, netip.AddrPortFrom(a.Unmap(), uint16(p)))
		}
	}
	return list
}

func littleEndian() bool {
	return binary.NativeEndian.Uint16([]byte{1, 0}) == 1
}
