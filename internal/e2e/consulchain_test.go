package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// stubborn is echo, and under /flaky an application that fails the first
// requests of each X-Key with the status in X-Status, as often as X-Times says;
// /slow answers after two seconds.
func stubborn(instance string) http.Handler {
	var mu sync.Mutex
	seen := map[string]int{}
	mux := http.NewServeMux()
	mux.Handle("/", echo(instance))
	mux.HandleFunc("/flaky", func(w http.ResponseWriter, r *http.Request) {
		var times, status int
		_, _ = fmt.Sscan(r.Header.Get("X-Times"), &times)
		_, _ = fmt.Sscan(r.Header.Get("X-Status"), &status)
		mu.Lock()
		seen[r.Header.Get("X-Key")]++
		n := seen[r.Header.Get("X-Key")]
		mu.Unlock()
		if n <= times {
			w.WriteHeader(status)
			return
		}
		fmt.Fprint(w, n)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(2 * time.Second):
		case <-r.Context().Done():
		}
		fmt.Fprint(w, "slow")
	})
	return named(instance, mux)
}

// from is a condition for settles: the instance answers.
func from(instance string) func(answer) bool {
	return func(a answer) bool { return a.status == http.StatusOK && a.header.Get("X-Instance") == instance }
}

// Routers, splitters and resolvers are followed by the caller's sidecar,
// whatever stands beside the called instances.
func TestConsulChain(t *testing.T) {
	m := newConsulMesh(t, testkit.ConsulOptions{})
	m.protocol("http", "api", "admin", "store", "backup", "old", "ring")
	for i, version := range []string{"v1", "v2"} {
		kind := sidecarKinds[i%len(sidecarKinds)]
		id := "api-" + version
		m.join(kind, testkit.Sidecar{Service: "api", ID: id, App: serve(t, stubborn(id)), Meta: map[string]string{"version": version}})
	}
	other := sidecarKinds[len(sidecarKinds)-1]
	m.join(envoyKind, testkit.Sidecar{Service: "admin", App: serve(t, stubborn("admin"))})
	store := m.join(other, testkit.Sidecar{Service: "store", App: serve(t, stubborn("store"))})
	m.join(envoyKind, testkit.Sidecar{Service: "backup", App: serve(t, stubborn("backup"))})
	for i := range 3 {
		id := fmt.Sprintf("ring-%d", i)
		m.join(sidecarKinds[i%len(sidecarKinds)], testkit.Sidecar{Service: "ring", ID: id, App: serve(t, stubborn(id))})
	}

	m.agent.WriteEntry(t,
		entry("service-resolver", "api", "DefaultSubset", "v1", "ConnectTimeout", "3s", "Subsets", object{
			"v1": object{"Filter": "Service.Meta.version == v1"}, "v2": object{"Filter": "Service.Meta.version == v2"},
		}),
		entry("service-splitter", "api", "Splits", []object{
			{"Weight": 50, "ServiceSubset": "v1", "ResponseHeaders": object{"Set": object{"x-share": "one"}}},
			{"Weight": 50, "ServiceSubset": "v2", "RequestHeaders": object{"Set": object{"x-canary": "yes"}}},
		}),
		entry("service-router", "api", "Routes", []object{
			route(object{"PathPrefix": "/admin/"}, object{"Service": "admin", "PrefixRewrite": "/"}),
			route(object{"PathExact": "/header", "Header": []object{{"Name": "x-version", "Exact": "2"}}}, object{"ServiceSubset": "v2"}),
			route(object{"PathPrefix": "/query", "QueryParam": []object{{"Name": "version", "Exact": "2"}}}, object{"ServiceSubset": "v2"}),
			route(object{"PathRegex": "/item/[0-9]+", "Methods": []string{"PUT", "GET"}}, object{"ServiceSubset": "v2"}),
			route(object{"PathPrefix": "/CASE", "CaseInsensitive": true}, object{"ServiceSubset": "v2"}),
			route(object{"PathExact": "/flaky", "Header": []object{{"Name": "x-retry", "Present": true}}},
				object{"ServiceSubset": "v1", "NumRetries": 3, "RetryOnStatusCodes": []int{418, 503}}),
			route(object{"PathExact": "/flaky"}, object{"ServiceSubset": "v1"}),
			route(object{"PathExact": "/slow"}, object{"ServiceSubset": "v1", "RequestTimeout": "300ms"}),
			route(object{"PathPrefix": "/edit"}, object{
				"ServiceSubset":   "v1",
				"RequestHeaders":  object{"Add": object{"x-added": "a"}, "Set": object{"x-set": "s"}, "Remove": []string{"x-gone"}},
				"ResponseHeaders": object{"Set": object{"x-answer": "r"}},
			}),
		}),
		entry("service-resolver", "old", "Redirect", object{"Service": "admin"}),
		entry("service-resolver", "store", "Failover", object{"*": object{"Targets": []object{{"Service": "backup"}}}}),
		entry("service-resolver", "ring", "LoadBalancer", object{
			"Policy": "ring_hash", "RingHashConfig": object{"MinimumRingSize": 1024, "MaximumRingSize": 4096},
			"HashPolicies": []object{{"Field": "header", "FieldValue": "x-user", "Terminal": true}},
		}),
	)
	for _, kind := range sidecarKinds {
		t.Run(kind, func(t *testing.T) {
			m.protocol("http", "web-"+kind)
			web := m.join(kind, testkit.Sidecar{Service: "web-" + kind}, "api", "old", "store", "ring")
			get := func(path string, header ...string) (string, string, http.Header) {
				h := http.Header{}
				for i := 0; i < len(header); i += 2 {
					h.Set(header[i], header[i+1])
				}
				return http.MethodGet, web.url("api", path), h
			}
			expect := func(what string, ok func(answer) bool, path string, header ...string) answer {
				t.Helper()
				method, url, h := get(path, header...)
				return settles(t, what, method, url, h, ok)
			}
			expect("a prefix leads to another service", from("admin"), "/admin/x")
			a := expect("the prefix is rewritten", from("admin"), "/admin/deep/x")
			if p := parseSeen(t, a.body).Path; p != "/deep/x" {
				t.Errorf("the rewritten path is %s", p)
			}
			expect("a header leads to a subset", from("api-v2"), "/header", "X-Version", "2")
			expect("a query parameter leads to a subset", from("api-v2"), "/query?version=2")
			expect("an expression leads to a subset", from("api-v2"), "/item/12")
			expect("a path in any case leads to a subset", from("api-v2"), "/case/x")
			a = expect("headers are changed", from("api-v1"), "/edit", "X-Gone", "1", "X-Set", "old")
			if h := parseSeen(t, a.body).Header; h.Get("X-Added") != "a" || h.Get("X-Set") != "s" || h.Get("X-Gone") != "" || a.header.Get("X-Answer") != "r" {
				t.Errorf("changed headers: %v, answer: %v", h, a.header)
			}

			a = expect("retries", gives(http.StatusOK), "/flaky", "X-Key", "retried-"+kind, "X-Times", "2", "X-Status", "503", "X-Retry", "1")
			if a.body != "3" {
				t.Errorf("with retries the application answered at attempt %s", a.body)
			}
			// Outrigger by itself sends again what is safe to be sent again.
			_, url, h := get("/flaky", "X-Key", "once-"+kind, "X-Times", "1", "X-Status", "503")
			if a, err := ask(t, adminClient, http.MethodPost, url, h); err != nil || a.status != http.StatusServiceUnavailable {
				t.Errorf("without retries: %d, %v", a.status, err)
			}
			expect("the time of a request ends", gives(http.StatusGatewayTimeout), "/slow")

			shares := map[string]int{}
			for range 60 {
				method, url, _ := get("/split")
				a, err := ask(t, adminClient, method, url, nil)
				if err != nil || a.status != http.StatusOK {
					t.Fatalf("%d %v", a.status, err)
				}
				instance := a.header.Get("X-Instance")
				shares[instance]++
				canary, share := parseSeen(t, a.body).Header.Get("X-Canary"), a.header.Get("X-Share")
				if (instance == "api-v2") != (canary == "yes") || (instance == "api-v1") != (share == "one") {
					t.Errorf("%s with x-canary %q and x-share %q", instance, canary, share)
				}
			}
			// Of 60 draws with one half each, fewer than 8 come once in 10^10 times.
			if shares["api-v1"] < 8 || shares["api-v2"] < 8 {
				t.Errorf("shares: %v", shares)
			}

			settles(t, "a redirect", http.MethodGet, web.url("old", "/"), nil, from("admin"))

			settles(t, "the service itself while it is healthy", http.MethodGet, web.url("store", "/"), nil, from("store"))
			m.agent.Health(t, &store.Sidecar, "critical")
			settles(t, "another one when it is not", http.MethodGet, web.url("store", "/"), nil, from("backup"))
			m.agent.Health(t, &store.Sidecar, "passing")
			settles(t, "and back", http.MethodGet, web.url("store", "/"), nil, from("store"))

			users := map[string]bool{}
			for user := range 12 {
				first := ""
				for range 3 {
					a := settles(t, "an answer of the ring", http.MethodGet, web.url("ring", "/"), http.Header{"X-User": {fmt.Sprint(user)}}, gives(http.StatusOK))
					if i := a.header.Get("X-Instance"); first == "" {
						first = i
					} else if i != first {
						t.Errorf("user %d is at %s and at %s", user, first, i)
					}
				}
				users[first] = true
			}
			if len(users) < 2 {
				t.Errorf("all users are at %v", users)
			}
		})
	}
}

func route(match, destination object) object {
	return object{"Match": object{"HTTP": match}, "Destination": destination}
}
