package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A start that cannot succeed ends with code 1 and an error that says where
// the mistake is and what to do.
func TestStartFails(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	taken, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	m.catalog(map[string][]string{"api": nil})
	for _, c := range []struct {
		name string
		conf sections
		want []string
	}{
		{"outbound port in use", sections{
			"service": "{name: web}", "discovery": m.discovery(),
			"outbound": fmt.Sprintf(`{upstreams: [{service: api, listen: "%s"}]}`, taken.Addr()),
		}, []string{"outbound:api", "cannot listen on " + taken.Addr().String(), "another process listens there"}},
		{"inbound port in use", sections{
			"service": "{name: web, port: 8080}", "inbound": fmt.Sprintf(`{listen: "%s"}`, taken.Addr()),
		}, []string{"inbound", "cannot listen on " + taken.Addr().String()}},
		{"admin port in use", sections{
			"service": "{name: web}", "admin": fmt.Sprintf(`{listen: "%s"}`, taken.Addr()),
		}, []string{":1:17: admin.listen: cannot listen", "address already in use"}},
		{"admin for everybody", sections{
			"service": "{name: web}", "admin": `{listen: "0.0.0.0:15000"}`,
		}, []string{":1:17: admin.listen", "allow_remote"}},
		{"several mistakes", sections{
			"service": "{nam: web}", "drain": "{delay: 5}", "http": "{max_fields: many}",
		}, []string{":2:", "drain.delay", ":3:", "http.max_fields", `service.nam`, `did you mean "name"`}},
		{"identity files that are not there", sections{
			"service":  "{name: web, port: 8080}",
			"identity": fmt.Sprintf(`{startup_timeout: 500ms, files: {cert: "%[1]s/no.crt", key: "%[1]s/no.key", bundle: "%[1]s/no.pem"}}`, m.dir),
		}, []string{"identity", "no.crt"}},
		{"access log that cannot be written", sections{
			"service": "{name: web}", "telemetry": `{access_log: {path: "/nowhere/access.log"}}`,
		}, []string{"telemetry.access_log.path", "/nowhere/access.log"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := &mesh{t: t, dir: t.TempDir(), ca: m.ca}
			s := m.sidecar("web", c.conf)
			if code := s.code(patience); code != 1 {
				t.Errorf("exit code %d", code)
			}
			for _, w := range c.want {
				if !strings.Contains(s.out.String(), w) {
					t.Errorf("the error does not say %q", w)
				}
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		path := filepath.Join(m.dir, "none.yaml")
		p := spawn(t, "outrigger", exec.Command(program, "run", "--config", path))
		if code := p.code(patience); code != 1 || !strings.Contains(p.out.String(), path+":1:1: cannot be read") {
			t.Errorf("exit code %d: %s", code, p.out.String())
		}
	})
}

// Without an admin API the proxy works all the same, and listens nowhere else.
func TestWithoutAdmin(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	api, address := m.inbound("api", serve(t, echo("api")), nil)
	api.ready()
	m.catalog(map[string][]string{"api": {address}})
	web, call := m.outbound("web", "api", sections{"admin": `{listen: ""}`})
	web.says("event=applied")
	eventually(t, patience, "the endpoints are known", func() (bool, string) {
		return hasLine(web.out.String(), "endpoints changed"), ""
	})
	mustSee(t, "http://"+call+"/")
	out, err := exec.Command("ss", "-Hltnp").Output()
	if err != nil {
		missing(t, "ss: "+err.Error())
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, fmt.Sprintf("pid=%d,", web.cmd.Process.Pid)) && !strings.Contains(line, call) {
			t.Errorf("it listens also here: %s", line)
		}
	}
}
