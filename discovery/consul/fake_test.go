package consul

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// one is the answer with one instance on a port.
func one(port int) string {
	return fmt.Sprintf(`[{"Node":{"Node":"n","Address":"10.0.0.9"},"Service":{"ID":"a","Service":"api","Address":"10.0.0.1","Port":%d,"Weights":{"Passing":1,"Warning":1}},"Checks":[]}]`, port)
}

// asked is one request that a fake server got.
type asked struct {
	at    time.Time
	index string
	token string
	query string
}

// fake is a Consul server without a network: it answers from a script and,
// when that is used up, never.
type fake struct {
	mu     sync.Mutex
	script []func() *http.Response
	asked  []asked
}

func (f *fake) RoundTrip(req *http.Request) (*http.Response, error) {
	f.mu.Lock()
	f.asked = append(f.asked, asked{
		time.Now(), req.URL.Query().Get("index"), req.Header.Get("X-Consul-Token"), req.URL.RawQuery,
	})
	var next func() *http.Response
	if len(f.script) > 0 {
		next, f.script = f.script[0], f.script[1:]
	}
	f.mu.Unlock()
	if next == nil {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	resp := next()
	if resp == nil {
		return nil, &net.OpError{Op: "dial", Err: fmt.Errorf("connection refused")}
	}
	return resp, nil
}

func (f *fake) requests() []asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]asked(nil), f.asked...)
}

func answer(status int, index, body string, headers ...string) func() *http.Response {
	return func() *http.Response {
		h := http.Header{"X-Consul-Lastcontact": {"0"}, "X-Consul-Knownleader": {"true"}}
		if index != "" {
			h.Set("X-Consul-Index", index)
		}
		for i := 0; i < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
	}
}

func refused() *http.Response { return nil }

// play runs a script for some virtual time and returns what the sink got and
// what the server was asked.
func play(t *testing.T, cfg Config, d time.Duration, script ...func() *http.Response) (string, []asked, *Source) {
	t.Helper()
	f := &fake{script: script}
	s := sourceVia(t, cfg, f)
	l, stop := follow(t, s, "api")
	time.Sleep(d)
	synctest.Wait()
	status := s.Status()
	if len(status) != 1 || status[0].Service != "api" {
		t.Errorf("status %+v", status)
	}
	stop()
	close(l)
	var out []string
	for line := range l {
		out = append(out, line)
	}
	return strings.Join(out, "\n"), f.requests(), s
}

func indexes(a []asked) string {
	var out []string
	for _, r := range a {
		out = append(out, "<"+r.index+">")
	}
	return strings.Join(out, "")
}

func TestIndexRules(t *testing.T) {
	for _, tt := range []struct {
		name   string
		script []func() *http.Response
		asked  string
		got    string
	}{
		{"forwards", []func() *http.Response{answer(200, "5", one(1)), answer(200, "9", one(2))}, "<><5><9>", "api 10.0.0.1:1\napi 10.0.0.1:2"},
		{"the same again", []func() *http.Response{answer(200, "5", one(1)), answer(200, "5", one(1))}, "<><5><5>", "api 10.0.0.1:1"},
		{"backwards", []func() *http.Response{answer(200, "900", one(1)), answer(200, "3", one(1)), answer(200, "3", one(2))}, "<><900><><3>", "api 10.0.0.1:1\napi 10.0.0.1:2"},
		{"zero", []func() *http.Response{answer(200, "0", one(1)), answer(200, "4", one(1))}, "<><><4>", "api 10.0.0.1:1"},
		{"missing", []func() *http.Response{answer(200, "", one(1))}, "<><>", "api 10.0.0.1:1"},
		{"not a number", []func() *http.Response{answer(200, "x", one(1))}, "<><>", "api 10.0.0.1:1"},
		{
			"after an error",
			[]func() *http.Response{answer(200, "5", one(1)), answer(500, "", "rpc error"), answer(200, "5", one(1))},
			"<><5><><5>",
			"api 10.0.0.1:1\napi failed: consul at 127.0.0.1:8500 answered Unexpected response code: 500 (rpc error)\napi 10.0.0.1:1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, asked, _ := play(t, Config{Address: "127.0.0.1:8500"}, 15*time.Second, tt.script...)
				if indexes(asked) != tt.asked {
					t.Errorf("asked with %s, want %s", indexes(asked), tt.asked)
				}
				if got != tt.got {
					t.Errorf("got\n%s\nwant\n%s", got, tt.got)
				}
			})
		})
	}
}

// A query that was answered because its wait time was over goes on from there.
func TestWaitTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := func() *http.Response {
			time.Sleep(waitTime + 10*time.Second)
			return answer(200, "5", one(1))()
		}
		got, asked, s := play(t, Config{}, waitTime+time.Minute, answer(200, "5", one(1)), over)
		if indexes(asked) != "<><5><5>" || got != "api 10.0.0.1:1" {
			t.Errorf("asked with %s, got\n%s", indexes(asked), got)
		}
		if age := s.Status()[0].Age; age > time.Minute {
			t.Errorf("age %v after an answer without news", age)
		}
	})
}

func TestAnswersThatKeepLastGood(t *testing.T) {
	for _, tt := range []struct {
		name string
		bad  func() *http.Response
		want string
	}{
		{"no leader", answer(500, "", "No cluster leader"), "500 (No cluster leader)"},
		{"too many connections", answer(429, "", "limit"), "raise limits.http_max_conns_per_client of the agent"},
		{"forbidden", answer(403, "", "ACL not found"), `answered Unexpected response code: 403 (ACL not found); the ACL token needs service:read on "api" and node:read`},
		{"redirect", answer(302, "", "", "Location", "http://elsewhere/"), "302"},
		{"garbage", answer(200, "6", "<html>"), "invalid character '<'"},
		{"wrong type", answer(200, "6", `{"a":1}`), "cannot unmarshal object"},
		{"cut short", answer(200, "6", one(2)[:40]), "unexpected EOF"},
		{"null", answer(200, "6", "null"), "null instead of a list"},
		{"everything hidden", answer(200, "6", "[]", "X-Consul-Results-Filtered-By-ACLs", "true"), "every instance is hidden by ACLs"},
		{"refused", refused, "connection refused"},
		{"long message", answer(500, "", strings.Repeat("long ", 1000)), "long …)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{script: []func() *http.Response{answer(200, "5", one(1)), tt.bad}}
				s := sourceVia(t, Config{Address: "127.0.0.1:8500"}, f)
				l, stop := follow(t, s, "api")
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if st := s.Status()[0]; st.Endpoints != 1 || st.Index != 5 || !strings.Contains(st.LastError, tt.want) || st.Age < 4*time.Second {
					t.Errorf("status %+v, want an error with %q", st, tt.want)
				}
				stop()
				if got := <-l; got != "api 10.0.0.1:1" {
					t.Errorf("got %q", got)
				}
				if got := <-l; !strings.HasPrefix(got, "api failed: consul at 127.0.0.1:8500") || !strings.Contains(got, tt.want) || len(got) > 500 {
					t.Errorf("got %q, want a failure with %q", got, tt.want)
				}
				if len(l) > 0 {
					t.Errorf("then came %q", <-l)
				}
			})
		})
	}
}

func TestEmptyServiceIsEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, _, _ := play(t, Config{}, time.Second, answer(200, "5", one(1)), answer(200, "6", "[]"))
		if got != "api 10.0.0.1:1\napi" {
			t.Errorf("got\n%s", got)
		}
	})
}

func TestPartlyHiddenIsAWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, s := play(t, Config{}, time.Second, answer(200, "5", one(1), "X-Consul-Results-Filtered-By-ACLs", "true"))
		if st := s.Status()[0]; st.Warning != "some instances are hidden by ACLs; the token needs node:read" || st.LastError != "" {
			t.Errorf("status %+v", st)
		}
	})
}

// While the server only fails, it is asked less and less often, with jitter,
// and at least every 10 s.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := make([]func() *http.Response, 1000)
		for i := range script {
			script[i] = refused
		}
		_, asked, _ := play(t, Config{}, 10*time.Minute, script...)
		// Full jitter means 5 s on average once the limit is reached.
		if n := len(asked); n < 80 || n > 200 {
			t.Errorf("%d requests in 10 minutes, want about 125", n)
		}
		var late, lateSum time.Duration
		for i := 1; i < len(asked); i++ {
			pause := asked[i].at.Sub(asked[i-1].at)
			ceiling := min(backoffMax, backoffBase<<min(i-1, 20))
			if pause < minPause || pause > max(minPause, ceiling) {
				t.Errorf("pause %d is %v, want %v to %v", i, pause, minPause, ceiling)
			}
			if i > 10 {
				late++
				lateSum += pause
			}
		}
		if mean := lateSum / late; mean < 3500*time.Millisecond || mean > 6500*time.Millisecond {
			t.Errorf("the mean pause is %v, want about 5s", mean)
		}
	})
}

// A server that answers at once, as one does that ignores the index, is not
// asked in a tight loop.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := make([]func() *http.Response, 5000)
		for i := range script {
			script[i] = answer(200, "7", one(1))
		}
		_, asked, _ := play(t, Config{}, 10*time.Second, script...)
		if n := len(asked); n < 80 || n > 115 {
			t.Errorf("%d requests in 10 s, want about 100", n)
		}
	})
}

// A query that is never answered ends after the wait time and its slack; the
// data stays and the trouble is shown.
func TestHangingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := waitTime + waitTime/16 + slack
		got, asked, _ := play(t, Config{}, limit+20*time.Second, answer(200, "5", one(1)))
		if len(asked) < 3 {
			t.Fatalf("%d requests", len(asked))
		}
		if d := asked[2].at.Sub(asked[1].at); d < limit || d > limit+backoffBase {
			t.Errorf("the hanging query was given %v, want %v", d, limit)
		}
		if !strings.HasPrefix(got, "api 10.0.0.1:1\napi failed: consul at ") || !strings.Contains(got, "deadline exceeded") {
			t.Errorf("got\n%s", got)
		}
	})
}

// slowBody sends one byte a second without end.
type slowBody struct{ ctx <-chan struct{} }

func (b slowBody) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		p[0] = ' '
		return 1, nil
	case <-b.ctx:
		return 0, fmt.Errorf("request cancelled")
	}
}
func (slowBody) Close() error { return nil }

// endless sends spaces as fast as they are read.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
func (endless) Close() error { return nil }

type viaFunc func(*http.Request) (*http.Response, error)

func (f viaFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestEndlessBodies(t *testing.T) {
	t.Run("slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := sourceVia(t, Config{}, viaFunc(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: slowBody{r.Context().Done()}}, nil
			}))
			s.wait = time.Hour
			start := time.Now()
			_, _, _, err := s.query(t.Context(), t.Context(), "api", 1, time.Time{})
			if err == nil || !strings.Contains(err.Error(), "did not end within 30s") || time.Since(start) > bodyTime+time.Second {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		})
	})
	t.Run("large", func(t *testing.T) {
		s := sourceVia(t, Config{}, viaFunc(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: endless{}}, nil
		}))
		_, _, _, err := s.query(t.Context(), t.Context(), "api", 0, time.Time{})
		if err == nil || !strings.Contains(err.Error(), "more than 67108864 bytes") {
			t.Errorf("got %v", err)
		}
	})
}

func TestQueryOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Datacenter: "dc7", Tag: "blue", Filter: `Service.Meta.v == "2"`, OnlyPassing: true, Stale: true, Token: "secret"}
		_, asked, _ := play(t, cfg, time.Second, answer(200, "5", one(1)))
		want := []string{
			"dc=dc7&filter=Service.Meta.v+%3D%3D+%222%22&passing=1&stale=&tag=blue",
			"dc=dc7&filter=Service.Meta.v+%3D%3D+%222%22&index=5&passing=1&stale=&tag=blue&wait=300000ms",
		}
		if len(asked) != 2 || asked[0].query != want[0] || asked[1].query != want[1] || asked[0].token != "secret" {
			t.Errorf("asked %+v", asked)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, asked, _ := play(t, Config{}, time.Second, answer(200, "5", one(1)))
		if len(asked) != 2 || asked[0].query != "" || asked[0].token != "" {
			t.Errorf("asked %+v", asked)
		}
	})
}

func TestServiceNameThatIsAPath(t *testing.T) {
	s := sourceVia(t, Config{}, viaFunc(func(r *http.Request) (*http.Response, error) {
		t.Errorf("asked for %s", r.URL)
		return nil, io.EOF
	}))
	if _, _, _, err := s.query(t.Context(), t.Context(), "../kv/secret", 0, time.Time{}); err == nil {
		t.Error("no error")
	}
}

// Through real sockets: a head that never comes, a body that stops half way
// and a connection that is closed leave nothing behind when Run ends.
func TestRealSocketsLeaveNothingBehind(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		fails   bool
	}{
		{"slow head", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false},
		{"hanging body", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Consul-Index", "3")
			_, _ = io.WriteString(w, "[")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, false},
		{"closed", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			came := make(chan struct{}, 1000)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				came <- struct{}{}
				tt.handler(w, r)
			}))
			t.Cleanup(srv.Close)
			s, err := New(Config{Address: srv.URL})
			if err != nil {
				t.Fatal(err)
			}
			l, stop := follow(t, s, "api")
			<-came
			if tt.fails {
				l.expect(t, "~api failed: consul at "+srv.URL)
			}
			stop()
		})
	}
}

// An agent that was replaced between two queries is asked from the beginning:
// the index of the old one would wait in vain.
func TestReplacedBetweenQueries(t *testing.T) {
	var mu sync.Mutex
	fresh := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("index") != "" {
			<-r.Context().Done()
			return
		}
		mu.Lock()
		fresh++
		first := fresh == 1
		mu.Unlock()
		if first {
			w.Header().Set("Connection", "close")
			w.Header().Set("X-Consul-Index", "900")
			_, _ = io.WriteString(w, one(1))
			return
		}
		w.Header().Set("X-Consul-Index", "5")
		_, _ = io.WriteString(w, one(2))
	}))
	t.Cleanup(srv.Close)
	s, err := New(Config{Address: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	l, stop := follow(t, s, "api")
	l.expect(t, "api 10.0.0.1:1")
	l.expect(t, "api 10.0.0.1:2")
	stop()
}

// A server that keeps no connection open is still waited on.
func TestServerWithoutKeepAlive(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		switch r.URL.Query().Get("index") {
		case "":
			w.Header().Set("X-Consul-Index", "5")
			_, _ = io.WriteString(w, one(1))
		case "5":
			w.Header().Set("X-Consul-Index", "6")
			_, _ = io.WriteString(w, one(2))
		default:
			<-r.Context().Done()
		}
	}))
	t.Cleanup(srv.Close)
	s, err := New(Config{Address: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	l, stop := follow(t, s, "api")
	l.expect(t, "api 10.0.0.1:1")
	l.expect(t, "api 10.0.0.1:2")
	stop()
}

// The token must not follow a redirect to another server.
func TestTokenIsNotRedirected(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the other server was asked with token %q", r.Header.Get("X-Consul-Token"))
	}))
	t.Cleanup(other.Close)
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	t.Cleanup(srv.Close)
	s, err := New(Config{Address: srv.URL, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	l, stop := follow(t, s, "api")
	l.expect(t, "~307")
	stop()
}

func TestUnixSocket(t *testing.T) {
	path := t.TempDir() + "/consul.sock"
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("index") != "" {
			<-r.Context().Done()
			return
		}
		w.Header().Set("X-Consul-Index", "3")
		_, _ = io.WriteString(w, one(8))
	}))
	srv.Listener.Close()
	srv.Listener = ln
	srv.Start()
	t.Cleanup(srv.Close)
	s, err := New(Config{Address: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	l, stop := follow(t, s, "api")
	l.expect(t, "api 10.0.0.1:8")
	stop()
}
