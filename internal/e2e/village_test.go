package e2e

import (
	"context"
	"crypto/tls"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// village is what lies around the namespace of a test that runs alone: a client
// in a namespace of its own, and behind it another machine, joined by pairs of
// interfaces. The client passes packets on between the two.
type village struct {
	client, far place
	// outside are greeters of the client by its addresses 10.8.0.2 and fd08::2, of
	// which no proxy knows.
	outside map[string]string
}

// place is a namespace from which is called.
type place struct{ *testkit.NetNS }

func newVillage(t *testing.T) *village {
	t.Helper()
	v := &village{client: place{testkit.NewNetNS(t)}, far: place{testkit.NewNetNS(t)}, outside: map[string]string{}}
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	here := &testkit.NetNS{File: own}
	here.Join(t, "eth0", []string{"10.8.0.1/24", "fd08::1/64"}, v.client.NetNS, "eth0", []string{"10.8.0.2/24", "fd08::2/64"})
	v.client.Join(t, "eth1", []string{"10.8.1.2/24", "fd81::2/64"}, v.far.NetNS, "eth0", []string{"10.8.1.1/24", "fd81::1/64"})
	err = v.client.Do(func() error {
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	here.IP(t, "route replace default via 10.8.0.2")
	here.IP(t, "-6 route replace default via fd08::2")
	v.far.IP(t, "route add default via 10.8.1.2")
	v.far.IP(t, "-6 route add default via fd81::2")
	for _, host := range []string{"10.8.0.2", "fd08::2"} {
		v.client.run(t, func() { v.outside[host] = greetAt(t, net.JoinHostPort(host, "0"), "outside\n") })
	}
	return v
}

// run runs f, which makes sockets, in the namespace.
func (p place) run(t *testing.T, f func()) {
	t.Helper()
	if err := p.Do(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

func (p place) dial(address string) (c net.Conn, err error) {
	e := p.Do(func() error {
		c, err = net.DialTimeout("tcp", address, patience)
		return nil
	})
	if e != nil {
		return nil, e
	}
	return c, err
}

// chat is chat from the namespace.
func (p place) chat(address, say string) (string, error) {
	c, err := p.dial(address)
	if err != nil {
		return "", err
	}
	return talkOn(c, say)
}

// fetch is fetchOnce from the namespace.
func (p place) fetch(url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(_ context.Context, _, address string) (net.Conn, error) { return p.dial(address) },
	}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// answer is answerTo from the namespace, or says why there is none.
func (p place) answer(address string, cert *tls.Certificate) string {
	c, err := p.dial(address)
	if err != nil {
		return err.Error()
	}
	return string(answerOn(c, cert))
}

// proxyUser is the user of proxies that are not root.
const proxyUser = 5995

// own gives the files of the mesh to proxyUser.
func (m *mesh) own() {
	m.t.Helper()
	err := filepath.WalkDir(m.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, proxyUser, proxyUser)
	})
	for _, dir := range []string{filepath.Dir(m.dir), filepath.Dir(program)} {
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// launchAs starts a sidecar as proxyUser, who has CAP_NET_ADMIN where able says
// so and nothing else.
func (m *mesh) launchAs(s *sidecar, able bool) {
	m.t.Helper()
	m.own()
	cmd := exec.Command(program, "run", "--config", s.config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: proxyUser, Gid: proxyUser}}
	if able {
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN}
	}
	s.process = spawn(m.t, s.config, cmd)
}

// launchIn starts a sidecar in the namespace, in the proxy's group.
func (p place) launchIn(s *sidecar) {
	s.t.Helper()
	cmd := exec.Command(need(s.t, "nsenter"), "--net="+p.Path(), "--", program, "run", "--config", s.config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 0, Gid: proxyGroup}}
	s.process = spawn(s.t, s.config, cmd)
}

// A program that a test has started outlives the threads of the test's process.
func TestSpawnOutlivesThreads(t *testing.T) {
	p := spawn(t, "sleep", exec.Command(need(t, "sleep"), "60"))
	for range 50 {
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			close(done)
		}()
		<-done
	}
	p.signal(syscall.SIGTERM)
	if <-p.exited; p.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("it ended by %v", p.cmd.ProcessState)
	}
}
