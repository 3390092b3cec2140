package demo

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func fetch(t *testing.T, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAppAnswers(t *testing.T) {
	a := &App{Name: "api-2"}
	srv := httptest.NewServer(a.handler(nil))
	defer srv.Close()
	if code, body := fetch(t, srv.URL); code != 200 || body != "{\"instance\":\"api-2\"}\n" {
		t.Errorf("%d %q", code, body)
	}
	a.say(sayFail)
	a.say("nonsense")
	if code, body := fetch(t, srv.URL); code != 500 || !strings.Contains(body, "told to fail") {
		t.Errorf("%d %q", code, body)
	}
	a.say(sayWork)
	if code, _ := fetch(t, srv.URL); code != 200 {
		t.Errorf("%d after it recovered", code)
	}
}

func TestAppRelays(t *testing.T) {
	var seen http.Header
	var calls int
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		seen = r.Header.Clone()
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, r.URL.RequestURI())
	}))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	a := &App{Name: "web", Upstream: up.URL}
	srv := httptest.NewServer(a.handler(client))
	defer srv.Close()
	if code, body := fetch(t, srv.URL+"/x?y=1", "Traceparent", "tp", "X-Secret", "s"); code != http.StatusTeapot || body != "/x?y=1" {
		t.Errorf("%d %q", code, body)
	}
	if seen.Get("Traceparent") != "tp" || seen.Get("X-Secret") != "" {
		t.Errorf("%v", seen)
	}
	up.Close()
	if code, _ := fetch(t, srv.URL); code != http.StatusBadGateway || calls != 1 {
		t.Errorf("%d without an upstream, %d calls", code, calls)
	}
}

// An application ends with its input, which the kernel closes when the demo dies.
func TestAppRunEndsWithItsInput(t *testing.T) {
	m, err := newMesh(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a := &App{Name: "api-1", Listen: m.API[0].App}
	control, hold := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(t.Context(), control) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d := &director{mesh: m}
	if err := d.await(ctx, "the application", func() error { return get(ctx, "http://"+a.Listen, nil) }); err != nil {
		t.Fatal(err)
	}
	if err := (&App{Listen: a.Listen}).Run(ctx, control); err == nil {
		t.Error("two applications listen on one port")
	}
	hold.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
