package exchange_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// call makes a gRPC call whose message is body and returns its status, from
// headers or trailers, and reports whether there were headers only.
func (p *pair) call(t testing.TB, path, body string, header ...string) (status string, alone bool, res *http.Response) {
	t.Helper()
	res, _ = p.must(t, "POST", path, opaque{strings.NewReader(body)}, append([]string{"content-type", "application/grpc", "te", "trailers"}, header...)...)
	if s := res.Header.Get("grpc-status"); s != "" {
		return s, true, res
	}
	return res.Trailer.Get("grpc-status"), false, res
}

func grpcOrigin(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	w.Header().Set("content-type", "application/grpc")
	status := strings.TrimPrefix(r.URL.Path, "/svc/")
	switch {
	case status == "timeout":
		w.Header().Set("x-timeout", r.Header.Get("grpc-timeout"))
		w.Header().Set("grpc-status", "0")
	case status == "stall":
		<-r.Context().Done()
	case strings.HasPrefix(status, "only"):
		w.Header().Set("grpc-status", status[4:])
	default:
		_, _ = w.Write(b)
		w.Header().Set(http.TrailerPrefix+"grpc-status", status)
	}
}

// TestGRPCStatuses: which statuses are the endpoint's fault, wherever they are.
func TestGRPCStatuses(t *testing.T) {
	blamed := map[int]bool{2: true, 4: true, 8: true, 13: true, 14: true, 15: true}
	runLegs(t, []legs{{true, true}}, nil, grpcOrigin, func(t *testing.T, p *pair) {
		var want []string
		for n := range 17 {
			for _, prefix := range []string{"", "only"} {
				got, alone, _ := p.call(t, fmt.Sprintf("/svc/%s%d", prefix, n), "hello")
				if got != fmt.Sprint(n) || alone != (prefix != "") {
					t.Errorf("%s%d: status %q, headers only: %v", prefix, n, got, alone)
				}
				if blamed[n] {
					want = append(want, "upstream_error")
				} else {
					want = append(want, "ok")
				}
			}
		}
		p.wantReasons(want...)
	})
}

// TestGRPCTimeout: the caller's deadline is passed on less what is spent, and
// holds here.
func TestGRPCTimeout(t *testing.T) {
	runLegs(t, []legs{{true, true}, {true, false}}, nil, grpcOrigin, func(t *testing.T, p *pair) {
		_, _, res := p.call(t, "/svc/timeout", "x", "grpc-timeout", "7S")
		var us int
		if _, err := fmt.Sscanf(res.Header.Get("x-timeout"), "%du", &us); err != nil || us <= 0 || us > 7_000_000 {
			t.Errorf("grpc-timeout 7S became %q", res.Header.Get("x-timeout"))
		}
		got, alone, res := p.call(t, "/svc/stall", "x", "grpc-timeout", "200m")
		if got != "4" || !alone || res.StatusCode != 200 {
			t.Errorf("status %q, headers only: %v, %d", got, alone, res.StatusCode)
		}
		p.wantReasons("ok", "request_timeout")
	})
}

// TestGRPCLocalReply: what the proxy answers is a status too.
func TestGRPCLocalReply(t *testing.T) {
	runLegs(t, []legs{{true, true}}, func(s *setup) { s.policy.ConnectTimeout = time.Second }, grpcOrigin, func(t *testing.T, p *pair) {
		p.cluster.SetLocal(nil)
		got, alone, res := p.call(t, "/svc/0", "x")
		if got != "14" || !alone || res.StatusCode != 200 || res.Header.Get("x-outrigger-reason") != "no_endpoints" || res.Header.Get("grpc-message") == "" {
			t.Errorf("status %q, headers only: %v, %d %v", got, alone, res.StatusCode, res.Header)
		}
		p.wantReasons("no_endpoints")
	})
}
