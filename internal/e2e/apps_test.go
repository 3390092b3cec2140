package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// seen is what an echoing application says about a request.
type seen struct {
	Instance string
	Method   string
	Path     string
	Header   http.Header
	Length   int64
	Sum      string // SHA-256 of the body, hex
	Encoding []string
}

// echo answers with what it has seen of a request. Under /bytes/N it answers
// with N bytes, under /status/N with that status.
func echo(instance string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", r.PathValue("n"))
		_, _ = io.CopyN(w, zeros{}, n)
	})
	mux.HandleFunc("/status/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil {
			n = http.StatusBadRequest
		}
		w.WriteHeader(n)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(seen{
			Instance: instance, Method: r.Method, Path: r.URL.Path, Header: r.Header,
			Length: n, Sum: hex.EncodeToString(sum.Sum(nil)), Encoding: r.TransferEncoding,
		})
	})
	return mux
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// serve starts an application on a port of loopback and returns the port.
func serve(t *testing.T, h http.Handler) int {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	l, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return l.Addr().(*net.TCPAddr).Port
}

// serveTCP starts an application that handles connections and returns its port.
func serveTCP(t *testing.T, handle func(net.Conn)) int {
	t.Helper()
	l, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	acceptAll(t, l, handle)
	return l.Addr().(*net.TCPAddr).Port
}

// acceptAll handles the connections that come to l until the test ends.
func acceptAll(t *testing.T, l net.Listener, handle func(net.Conn)) {
	t.Helper()
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
}

// echoTCP sends back what comes until the client ends its side.
func echoTCP(c net.Conn) { _, _ = io.Copy(c, c) }

// fetch is one request on a connection of its own.
func fetch(t *testing.T, method, url string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	resp, err := adminClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, string(b)
}

// mustSee is a GET that the echoing application answers.
func mustSee(t *testing.T, url string) seen {
	t.Helper()
	resp, body := fetch(t, http.MethodGet, url, nil)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %d %s", url, resp.StatusCode, body)
	}
	return parseSeen(t, body)
}

func parseSeen(t *testing.T, body string) seen {
	t.Helper()
	var s seen
	if err := json.NewDecoder(strings.NewReader(body)).Decode(&s); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return s
}
