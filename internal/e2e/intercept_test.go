package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// intercept runs "outrigger intercept" and returns what it prints, and its exit
// code.
func intercept(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(program, append([]string{"intercept"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// An application that knows of no proxy: the program's own rules bring its
// calls to the proxy, hold them until the proxy listens, and go again.
func TestIntercept(t *testing.T) {
	if !alone(t) {
		return
	}
	m := newTransparentMesh(t, "{}")
	install := []string{"install", "--proxy-gid", fmt.Sprint(proxyGroup), "--before-ready", "hold"}
	for range 2 {
		if out, code := intercept(t, install...); code != 0 {
			t.Fatal(out)
		}
	}
	type answer struct {
		status int
		body   string
		err    error
	}
	early := make(chan answer, 1)
	go func() {
		status, body, err := fetchOnce("http://240.0.0.5/early")
		early <- answer{status, body, err}
	}()
	eventually(t, patience, "the call is held", func() (bool, string) {
		out, _ := intercept(t, "status", "--json")
		var s struct {
			Counters []struct {
				Rule    string
				Packets int
			}
		}
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			return false, out
		}
		for _, c := range s.Counters {
			if c.Rule == "drop" && c.Packets > 0 {
				return true, ""
			}
		}
		return false, out
	})
	m.web.launch()
	m.api.ready()
	m.web.ready()
	if a := <-early; a.err != nil || a.status != http.StatusOK || !strings.Contains(a.body, `"api-1"`) {
		t.Errorf("the call that was early: %+v", a)
	}
	for _, at := range []string{"240.0.0.5:8080", "[fd40::5]:7"} {
		status, body, err := fetchOnce("http://" + at + "/hello")
		if err != nil || status != http.StatusOK || !strings.Contains(body, `"api-1"`) {
			t.Errorf("%s: %d %s %v", at, status, body, err)
		}
	}
	r := m.web.recorded("the call to [fd40::5]:7", func(r *record) bool { return r.Original == "[fd40::5]:7" })
	if r.Listener != "outbound:api" || r.UpstreamID != spiffe("api") {
		t.Errorf("the record is %+v", r)
	}
	for _, x := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"verify"}, "arrived at the proxy's port 15001", 0},
		{[]string{"verify", "--from", "gid=5995", "--to", "240.0.0.5:80"}, "goes its way by rule 1 of chain outbound: the proxy itself", 0},
		{[]string{"verify", "--from", "uid=1000", "--to", "240.0.0.5:80"}, "goes to 127.0.0.1:15001", 0},
		{[]string{"status"}, "table outrigger: installed", 0},
		{[]string{"status", "--proxy-uid", "9"}, "+ inet outbound: meta skgid 5995 return", 4},
		{[]string{"status", "--netns", fmt.Sprintf("/proc/%d/ns/mnt", os.Getpid())}, "is none", 1},
		{[]string{"remove"}, "removed", 0},
		{[]string{"remove"}, "there was none", 0},
		{[]string{"status"}, "missing", 3},
		{[]string{"verify"}, "is this the right network namespace", 1},
	} {
		if out, code := intercept(t, x.args...); code != x.code || !strings.Contains(out, x.want) {
			t.Errorf("%s: %d %s", x.args, code, out)
		}
	}
}
