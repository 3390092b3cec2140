package demo

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Rate: 200}, ""},
		{Options{Rate: 200, Duration: 20 * time.Second, Consul: true, ConsulAddr: "http://127.0.0.1:8500"}, ""},
		{Options{Rate: 200, Duration: time.Second}, "--duration 1s: the faults need at least 8s to show; 0 runs until Ctrl-C"},
		{Options{Rate: 5}, "--rate 5: use 20 to 1000 requests a second"},
		{Options{Rate: 5000, Duration: -1, ConsulAddr: "x"}, "--duration -1ns: the faults need at least 8s to show; 0 runs until Ctrl-C\n--rate 5000: use 20 to 1000 requests a second\n--consul-addr needs --consul"},
	} {
		got := ""
		if err := c.o.Validate(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: %q", c.o, got)
		}
	}
}

func TestConsulIsMissing(t *testing.T) {
	t.Setenv("CONSUL_BIN", "/no/such/consul")
	_, err := openConsul(t.Context(), nil, "", "", nil)
	if err == nil || !strings.Contains(err.Error(), "CONSUL_BIN") || !strings.Contains(err.Error(), "--consul-addr") {
		t.Errorf("%v", err)
	}
}

func TestConsulAddress(t *testing.T) {
	nodes := `[{"Node":"n"}]`
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Consul-Token"))
		_, _ = w.Write([]byte(nodes))
	}))
	defer srv.Close()
	t.Setenv("CONSUL_HTTP_TOKEN", "secret")
	for _, address := range []string{srv.URL + "/", strings.TrimPrefix(srv.URL, "http://")} {
		a, err := openConsul(t.Context(), nil, "", address, nil)
		if err != nil || a.address != srv.URL {
			t.Fatalf("%s: %+v, %v", address, a, err)
		}
		a.forget("x")
		a.close()
	}
	want := "GET /v1/catalog/nodes secret,PUT /v1/agent/service/deregister/x secret"
	if got := strings.Join(asked, ","); got != want+","+want {
		t.Errorf("%s", got)
	}
	nodes = `[]`
	for _, address := range []string{srv.URL, "ftp://127.0.0.1:1", "http://127.0.0.1:1"} {
		if _, err := openConsul(t.Context(), nil, "", address, nil); err == nil || !strings.Contains(err.Error(), "--consul-addr") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// The load goes on at its rate, counts what is not 200 as failed, and loses
// nothing at its end.
func TestLoad(t *testing.T) {
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	s := &stats{}
	ctx, cancel := contextUntil(t, func() bool { return s.total(time.Second).Requests >= 20 })
	defer cancel()
	(&load{url: srv.URL, rate: 200, began: time.Now(), stats: s}).run(ctx)
	srv.Close()
	f := s.total(time.Second)
	if f.Requests < 20 || f.Failures == 0 || f.Failures == f.Requests {
		t.Errorf("%+v", f)
	}
}

// contextUntil returns a context that ends when done says so.
func contextUntil(t *testing.T, done func() bool) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if done() {
					cancel()
				}
			}
		}
	}()
	return ctx, cancel
}
