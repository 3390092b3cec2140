package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// insideNamespace is set in the process that runs a test in a network namespace
// of its own; its value is the program under test.
const insideNamespace = "OUTRIGGER_E2E_NAMESPACE"

// alone runs the rest of the calling test in a network namespace of its own,
// where rules may be made that nobody else meets: the test process is started
// anew in it for that one test. It reports true in the namespace, which has the
// loopback device, v0 with 10.9.9.1/24 and fd99::1/64, and a way to every other
// address that leads nowhere.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideNamespace) != "" {
		for _, line := range []string{
			"link set lo up", "link add v0 type veth peer name v1", "link set v0 up", "link set v1 up",
			"addr add 10.9.9.1/24 dev v0", "-6 addr add fd99::1/64 dev v0 nodad",
			"route add default dev v0", "-6 route add default dev v0",
		} {
			tool(t, "ip", "", strings.Fields(line)...)
		}
		return true
	}
	if os.Getuid() != 0 {
		missing(t, "network namespaces need root")
	}
	need(t, "ip")
	need(t, "nft")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), insideNamespace+"="+program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	// The process is killed when the thread ends that has started it, see testkit.Start.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil && bytes.Contains(out, []byte("--- SKIP")):
		missing(t, "in the namespace: "+string(out))
	case err == nil:
		t.Logf("in the namespace:\n%s", out)
	case bytes.Contains(out, []byte("--- FAIL")) || len(out) > 0:
		t.Fatalf("in the namespace: %v\n%s", err, out)
	default:
		missing(t, "no network namespace can be made: "+err.Error())
	}
	return false
}

// tool runs a program with input, which must go well.
func tool(t *testing.T, name, input string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, out, input)
	}
	return string(out)
}

// proxyGroup is the group whose processes are exempt from redirection.
const proxyGroup = 5995

// redirect makes the rules that bring the connections of this namespace to port,
// but those of the proxy's group.
func redirect(t *testing.T, port int) {
	t.Helper()
	tool(t, program, "", "intercept", "install", "--proxy-gid", strconv.Itoa(proxyGroup), "--proxy-outbound-port", strconv.Itoa(port))
}

// redirectAll makes rules of which nobody is exempt.
func redirectAll(t *testing.T, port int) {
	t.Helper()
	tool(t, "nft", fmt.Sprintf(`
table inet outrigger_e2e {
	chain output {
		type nat hook output priority -100; policy accept;
		ip daddr 127.0.0.0/8 return
		ip6 daddr ::1 return
		meta l4proto tcp redirect to :%d
	}
}
`, port), "-f", "-")
}

// launch starts the sidecar in the proxy's group.
func (s *sidecar) launch() {
	s.t.Helper()
	cmd := exec.Command(program, "run", "--config", s.config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 0, Gid: proxyGroup}}
	s.process = spawn(s.t, s.config, cmd)
}
