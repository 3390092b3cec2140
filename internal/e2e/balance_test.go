package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// letters starts n applications, each of which answers by its name, and lists
// them in the catalog as api.
func (m *mesh) letters(n int, app func(name string) http.Handler) (addresses map[string]string) {
	m.t.Helper()
	addresses = map[string]string{}
	var all []string
	for i := range n {
		name := fmt.Sprintf("api-%d", i+1)
		addresses[name] = loopback(serve(m.t, named(name, app(name))))
		all = append(all, addresses[name])
	}
	m.catalog(map[string][]string{"api": all})
	return addresses
}

// balanced starts a sidecar that calls api with that balancing.
func (m *mesh) balanced(name, balance string) (*sidecar, string) {
	m.t.Helper()
	s, address := m.outbound(name, "api", sections{
		"policies": fmt.Sprintf(`{api: {transport: plaintext, balance: %s}}`, balance),
	})
	s.ready()
	return s, "http://" + address
}

// who is the instance that answers a request with these fields, and the cookies
// that the client gets.
func who(t *testing.T, url string, fields map[string]string) (instance string, cookies []*http.Cookie) {
	t.Helper()
	resp, body := fetch(t, http.MethodGet, url, func(r *http.Request) {
		for name, value := range fields {
			r.Header.Set(name, value)
		}
	})
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %d %s", url, resp.StatusCode, body)
	}
	return parseSeen(t, body).Instance, resp.Cookies()
}

// Requests with one value of a header go to one instance, from every proxy, and
// only those of an instance that leaves go elsewhere.
func TestHashByHeader(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"ring_hash", "maglev"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			const users = 100
			m := newMesh(t)
			addresses := m.letters(4, echo)
			balance := fmt.Sprintf("{algorithm: %s, hash: [{header: X-User}]}", algorithm)
			web, one := m.balanced("web", balance)
			_, two := m.balanced("shop", balance)
			at := map[string]string{}
			used := map[string]int{}
			// By chance one of four has none of 100 users once in 10^12 times.
			for i := range users {
				user := fmt.Sprintf("user-%d", i)
				first, _ := who(t, one+"/", map[string]string{"x-user": user})
				for _, url := range []string{one, two} {
					if again, _ := who(t, url+"/", map[string]string{"x-user": user}); again != first {
						t.Fatalf("%s is at %s and at %s", user, first, again)
					}
				}
				at[user] = first
				used[first]++
			}
			if len(used) != 4 {
				t.Errorf("%d users are at %v", users, used)
			}
			gone := at["user-0"]
			var rest []string
			for name, address := range addresses {
				if name != gone {
					rest = append(rest, address)
				}
			}
			m.catalog(map[string][]string{"api": rest})
			eventually(t, patience, "the instance leaves", func() (bool, string) {
				n := web.metric("outrigger_cluster_endpoints", `cluster="api"`)
				return n == 3, fmt.Sprint(n)
			})
			moved := 0
			for user, was := range at {
				is, _ := who(t, one+"/", map[string]string{"x-user": user})
				if is == gone {
					t.Errorf("%s is still at %s", user, gone)
				}
				if was != gone && is != was {
					moved++
				}
			}
			if most := map[string]int{"ring_hash": 0, "maglev": 10}[algorithm]; moved > most {
				t.Errorf("%d users of other instances moved, want at most %d", moved, most)
			}
		})
	}
}

// A client stays at its instance by the cookie that it got, through a reload
// and through a restart of a proxy with a key file, until the instance is gone.
func TestAffinityCookie(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	addresses := m.letters(4, echo)
	key := filepath.Join(m.dir, "affinity.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("0123456789abcdef", 4)), 0o600); err != nil {
		t.Fatal(err)
	}
	web, url := m.balanced("web", fmt.Sprintf("{algorithm: random, affinity: {name: srv, ttl: 1h, key_file: %q}}", key))
	was, cookies := who(t, url+"/", nil)
	if len(cookies) != 1 || cookies[0].Name != "srv" || len(cookies[0].Value) != 24 || cookies[0].MaxAge != 3600 || !cookies[0].Secure || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteLaxMode {
		t.Fatalf("the client gets %v", cookies)
	}
	mine := map[string]string{"cookie": "srv=" + cookies[0].Value}
	stays := func(when string) {
		t.Helper()
		for range 12 {
			if is, more := who(t, url+"/", mine); is != was || len(more) > 0 {
				t.Fatalf("%s the client goes to %s with %v, was at %s", when, is, more, was)
			}
		}
	}
	stays("at first")
	version := web.overview().Reload.Version
	web.rewrite(sections{"policies": fmt.Sprintf(`{api: {transport: plaintext, timeout: 9s, balance: {algorithm: least_time, affinity: {name: srv, ttl: 2h, key_file: %q}}}}`, key)})
	web.applied(version)
	stays("after a reload")
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	for range 12 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("cookie", "theme=dark; "+mine["cookie"]) // a field line each in HTTP/2
		resp, err := h2.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if is := parseSeen(t, string(body)).Instance; err != nil || is != was || resp.ProtoMajor != 2 {
			t.Fatalf("over HTTP/%d the client goes to %s, was at %s (%v)", resp.ProtoMajor, is, was, err)
		}
	}
	web.kill()
	web.start()
	web.ready()
	stays("after a restart")
	web.counts(12, "outrigger_affinity_total", `result="kept"`)

	var rest []string
	for name, address := range addresses {
		if name != was {
			rest = append(rest, address)
		}
	}
	m.catalog(map[string][]string{"api": rest})
	eventually(t, patience, "the instance leaves", func() (bool, string) {
		n := web.metric("outrigger_cluster_endpoints", `cluster="api"`)
		return n == 3, fmt.Sprint(n)
	})
	is, cookies := who(t, url+"/", mine)
	if is == was || len(cookies) != 1 || "srv="+cookies[0].Value == mine["cookie"] {
		t.Errorf("the client of an instance that is gone goes to %s with %v", is, cookies)
	}
	web.counts(1, "outrigger_affinity_total", `result="lost"`)
	forged := map[string]int{}
	for range 60 {
		is, cookies := who(t, url+"/", map[string]string{"cookie": "srv=" + strings.Repeat("A", 24)})
		forged[is]++
		if len(cookies) != 1 {
			t.Fatalf("a client with a cookie of its own making gets %v", cookies)
		}
	}
	if len(forged) < 2 {
		t.Errorf("60 clients with cookies of their own making are at %v", forged)
	}
}

// Requests of one user that are in flight at once spill over to the next
// instances when their own has its bounded load.
func TestBoundedLoadSpills(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	release := make(chan struct{})
	var mu sync.Mutex
	began := map[string]int{}
	m.letters(4, func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			began[name]++
			mu.Unlock()
			<-release
			echo(name).ServeHTTP(w, r)
		})
	})
	web, url := m.balanced("web", "{algorithm: maglev, bounded_load_percent: 150, hash: [{header: x-user}]}")
	var clients sync.WaitGroup
	const n = 16
	for i := range n {
		clients.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/", http.NoBody)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("x-user", "one")
			resp, err := adminClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
		})
		eventually(t, patience, "the request is at an instance", func() (bool, string) {
			mu.Lock()
			defer mu.Unlock()
			sum := 0
			for _, c := range began {
				sum += c
			}
			return sum == i+1, fmt.Sprint(began)
		})
	}
	close(release)
	clients.Wait()
	// The last request saw 16 in flight: 1.5 x 16/4 = 6 for each at most.
	for name, c := range began {
		if c > 6 {
			t.Errorf("%s had %d of %d requests at once", name, c, n)
		}
	}
	if len(began) < 3 {
		t.Errorf("%d requests at once were at %v", n, began)
	}
	web.counts(1, "outrigger_balance_spills_total", `cluster="api"`)
}
