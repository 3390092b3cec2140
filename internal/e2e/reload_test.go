package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

type overview struct {
	Reload struct {
		Version   int
		Reloads   int
		Failures  int
		LastError string `json:"last_error"`
	}
	Process struct {
		Draining bool
	}
}

func (s *sidecar) overview() overview {
	s.t.Helper()
	var v overview
	s.view("/", &v)
	return v
}

// applied waits until a plan with a later version is in use.
func (s *sidecar) applied(after int) {
	s.t.Helper()
	eventually(s.t, patience, "a new plan is in use", func() (bool, string) {
		v := s.overview()
		return v.Reload.Version > after && v.Reload.LastError == "", fmt.Sprintf("%+v", v.Reload)
	})
}

// A configuration with a mistake changes nothing: the plan before it goes on,
// and the mistake is shown with its place.
func TestReloadWithMistakes(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p := m.pair(serve(t, named("api", echo("api"))), nil, nil)
	taken, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	good, err := os.ReadFile(p.web.config)
	if err != nil {
		t.Fatal(err)
	}
	l := startLoad(t, p.call+"/", loadOptions{Workers: 2})
	line := strings.Count(string(good), "\n") + 1
	free := freeAddress(t)
	failures := 0
	for _, c := range []struct {
		name, content string
		want          []string
	}{
		{"not YAML", "service: [\n", []string{p.web.config + ":1:"}},
		{"empty", "", []string{p.web.config + ":1:1: is empty"}},
		{"unknown key", string(good) + "polices: {}\n", []string{fmt.Sprintf("%s:%d:1: polices", p.web.config, line), `did you mean "policies"`}},
		{"wrong unit", string(good) + "policies: {api: {timeout: 5}}\n", []string{fmt.Sprintf("%s:%d:", p.web.config, line), "policies.api.timeout"}},
		{"two mistakes", string(good) + "policies: {api: {timeout: -1s}}\nhttp: {max_fields: 1}\n", []string{"policies.api.timeout", "http.max_fields"}},
		{"port in use", strings.Replace(string(good), p.address, taken.Addr().String(), 1), []string{"cannot listen on " + taken.Addr().String(), "address already in use"}},
		{
			"one good and one bad listener", strings.Replace(string(good), "upstreams: [", fmt.Sprintf(`upstreams: [{service: a, listen: "%s"}, {service: b, listen: "%s"}, `, free, taken.Addr()), 1),
			[]string{"cannot listen on " + taken.Addr().String()},
		},
		{"needs a restart: admin", strings.Replace(string(good), strings.TrimPrefix(p.web.admin, "http://"), freeAddress(t), 1), []string{p.web.config + ":1:", "admin", "restart"}},
		{"needs a restart: service", strings.Replace(string(good), "{name: web}", "{name: webb}", 1), []string{"service.name", "restart"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			writeFile(t, p.web.config, c.content)
			failures++
			eventually(t, patience, "the mistake is shown", func() (bool, string) {
				v := p.web.overview()
				return v.Reload.Failures >= failures, fmt.Sprintf("%+v", v.Reload)
			})
			v := p.web.overview()
			for _, w := range c.want {
				if !strings.Contains(v.Reload.LastError, w) {
					t.Errorf("the error that is shown does not say %q: %s", w, v.Reload.LastError)
				}
			}
			if v.Reload.Version != 1 || v.Reload.Failures != failures {
				t.Errorf("%+v", v.Reload)
			}
			p.web.says("level=ERROR", "reload_failed")
			p.web.counts(float64(failures), "outrigger_config_reloads_total", `result="failure"`)
			if _, body := p.web.get("/"); !strings.Contains(body, "RELOAD FAILED") {
				t.Errorf("the admin page does not show it:\n%s", body)
			}
			l.more(t, 5)
			if c, err := net.Dial("tcp", free); err == nil {
				t.Errorf("a listener of the refused configuration is open")
				_ = c.Close()
			}
		})
	}
	// What was good before is good again.
	writeFile(t, p.web.config, string(good))
	eventually(t, patience, "the trouble is over", func() (bool, string) {
		v := p.web.overview()
		return v.Reload.LastError == "", fmt.Sprintf("%+v", v.Reload)
	})
	l.mustEnd(t, 50)
}

// A folder in which other files are written all the time does not put off the
// reading of the configuration.
func TestReloadInBusyFolder(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.catalog(map[string][]string{"api": nil})
	web, _ := m.outbound("web", "api", nil)
	web.ready()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				_ = os.WriteFile(web.config+".other", []byte("x"), 0o600)
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	web.rewrite(sections{"policies": "{api: {timeout: 7s}}"})
	// Below the ten seconds after which the file is looked at anyway.
	eventually(t, 9*time.Second, "the new configuration is in use", func() (bool, string) {
		v := web.overview()
		return v.Reload.Version == 2, fmt.Sprintf("%+v", v.Reload)
	})
}

// Reloads under load lose no request and no connection, neither of HTTP nor of
// TCP.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	app := serveTCP(t, echoTCP)
	db, dbInbound := m.inbound("db", app, sections{"service": fmt.Sprintf("{name: db, port: %d, protocol: tcp}", app)})
	api, apiInbound := m.inbound("api", serve(t, named("api", echo("api"))), nil)
	m.catalog(map[string][]string{"api": {apiInbound}, "db": {dbInbound}})
	apiCall, dbCall := freeAddress(t), freeAddress(t)
	web := m.sidecar("web", sections{
		"service":   "{name: web}",
		"discovery": m.discovery(),
		"outbound":  fmt.Sprintf(`{upstreams: [{service: api, listen: "%s"}, {service: db, listen: "%s", protocol: tcp}]}`, apiCall, dbCall),
	})
	for _, s := range []*sidecar{db, api, web} {
		s.ready()
	}
	l := startLoad(t, "http://"+apiCall+"/", loadOptions{Workers: 6, Pause: 10 * time.Millisecond})
	l.more(t, 50)
	c := talk(t, dbCall)
	kept := connectionsOf(web)
	for i := 1; i <= 6; i++ {
		web.rewrite(sections{"policies": fmt.Sprintf("{api: {timeout: %ds}}", 10+i)})
		api.rewrite(sections{"http": fmt.Sprintf("{max_fields: %d}", 100+i)})
		web.applied(i)
		api.applied(i)
		l.more(t, 20)
		if err := say(c, "after a reload"); err != nil {
			t.Fatalf("the TCP connection after reload %d: %v", i, err)
		}
	}
	for remote := range kept {
		if !connectionsOf(web)[remote] {
			t.Errorf("the connection of %s has not survived the reloads", remote)
		}
	}
	if status, body := web.get("/config"); status != http.StatusOK || !hasLine(body, "timeout: 16s") {
		t.Errorf("/config does not show the new value: %d %s", status, body)
	}
	l.mustEnd(t, 150)
}

// connectionsOf returns who is connected with a sidecar.
func connectionsOf(s *sidecar) map[string]bool {
	s.t.Helper()
	var list []struct{ Remote string }
	s.view("/connections", &list)
	m := map[string]bool{}
	for _, c := range list {
		m[c.Remote] = true
	}
	return m
}

// The state of an ejected endpoint outlives a reload.
func TestEjectionSurvivesReload(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	list := m.instances(3, func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if name == "api-1" {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
	}, nil)
	m.catalog(addresses(list))
	policy := `{api: {timeout: %s, outlier: {consecutive_failures: 3, base_ejection: 5m, max_ejection: 10m, max_ejected_percent: 50}, balance: {algorithm: random}, retry: off}}`
	web, call := m.outbound("web", "api", sections{"policies": fmt.Sprintf(policy, "10s")})
	web.ready()
	l := startLoad(t, "http://"+call+"/", loadOptions{})
	address := list[0].address
	eventually(t, patience, "api-1 is ejected", func() (bool, string) {
		e := web.endpoint(address)
		return e.State == "ejected", fmt.Sprintf("%+v", e)
	})
	l.settled(t)
	was := web.endpoint(address)
	failed := len(func() []string { l.mu.Lock(); defer l.mu.Unlock(); return l.failures }())
	web.rewrite(sections{"policies": fmt.Sprintf(policy, "11s")})
	web.applied(1)
	is := web.endpoint(address)
	if is.State != "ejected" || is.Ejections != was.Ejections || len(is.Evidence) == 0 || is.Until.Sub(was.Until).Abs() > time.Second {
		t.Errorf("before the reload %+v, after it %+v", was, is)
	}
	l.more(t, 30)
	if failures, _ := l.end(); len(failures) > failed {
		t.Errorf("%d requests failed after the reload: %s", len(failures)-failed, failures[failed])
	}
}

// SIGHUP reloads at once; a listener may be added and taken away again.
func TestReloadListeners(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p := m.pair(serve(t, named("api", echo("api"))), nil, nil)
	m.catalog(map[string][]string{"api": {p.inbound}, "more": {p.inbound}})
	second := freeAddress(t)
	was := p.web.conf["outbound"]
	upstreams := func(list string) sections { return sections{"outbound": "{upstreams: [" + list + "]}"} }
	one := fmt.Sprintf(`{service: api, listen: "%s"}`, p.address)
	p.web.rewrite(upstreams(one + fmt.Sprintf(`, {service: more, listen: "%s"}`, second)).with(sections{
		"policies": `{more: {identities: ["spiffe://e2e.test/api"]}}`,
	}))
	p.web.signal(syscall.SIGHUP)
	p.web.applied(1)
	p.web.ready()
	mustSee(t, "http://"+second+"/")
	kept, err := net.Dial("tcp", second)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if _, err := io.WriteString(kept, "GET / HTTP/1.1\r\nHost: more\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := readAnswer(kept); err != nil {
		t.Fatal(err)
	}

	// The second listener changes places with the first: both sockets stay.
	l := startLoad(t, p.call+"/", loadOptions{Workers: 2})
	l.more(t, 5)
	p.web.rewrite(upstreams(fmt.Sprintf(`{service: api, listen: "%s"}, {service: more, listen: "%s"}`, second, p.address)))
	p.web.applied(2)
	mustSee(t, "http://"+second+"/")
	l.more(t, 20)

	// One goes, together with the connection that nothing is done on.
	p.web.rewrite(sections{"outbound": was, "policies": ""})
	p.web.applied(3)
	_ = kept.SetReadDeadline(time.Now().Add(patience))
	if _, err := kept.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection of a listener that is gone: %v", err)
	}
	if c, err := net.Dial("tcp", second); err == nil {
		t.Error("the listener that was taken away is still open")
		_ = c.Close()
	}
	l.more(t, 10)
	l.mustEnd(t, 40)
	// SIGHUP without a change is a reload as well.
	before := p.web.metric("outrigger_config_reloads_total", `result="success"`)
	p.web.signal(syscall.SIGHUP)
	p.web.counts(before+1, "outrigger_config_reloads_total", `result="success"`)
}
