package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/peers"
)

// runReverseProxy is the subject `reverseproxy`: net/http's ReverseProxy as a
// sidecar with the same features as the others. Its parameters are the JSON
// text of peers.Params in a file.
func runReverseProxy(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("reverseproxy", flag.ContinueOnError)
	file := fs.String("params", "", "JSON `file` with the parameters")
	if err := fs.Parse(args); err != nil {
		return err
	}
	text, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	var p peers.Params
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("%s: %w", *file, err)
	}
	return serveReverseProxy(ctx, p)
}

func serveReverseProxy(ctx context.Context, p peers.Params) error {
	handler, served, err := newReverseProxy(p)
	if err != nil {
		return err
	}
	if p.AccessLog {
		f, err := os.OpenFile(p.Dir+"/access.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		records := &accessLog{to: bufio.NewWriterSize(f, 64<<10)}
		defer records.flush()
		handler = records.wrap(handler)
	}
	listen, err := net.Listen("tcp", p.Listen.String())
	if err != nil {
		return err
	}
	if p.TLSListen() {
		cfg, err := tlsConfig(p.Certs)
		if err != nil {
			return err
		}
		cfg.NextProtos = alpn(p.H2Listen())
		listen = tls.NewListener(listen, cfg)
	}
	admin, err := net.Listen("tcp", p.Admin.String())
	if err != nil {
		return err
	}
	quiet := log.New(io.Discard, "", 0) // clients that leave are no news here
	front := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, IdleTimeout: 10 * time.Minute, ErrorLog: quiet, Protocols: protocols(p.H2Listen(), p.TLSListen())}
	front.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1000}
	metrics := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "requests_total %d\nfailures_total %d\n", served.requests.Load(), served.failures.Load())
	})}
	ended := make(chan error, 2)
	go func() { ended <- front.Serve(listen) }()
	go func() { ended <- metrics.Serve(admin) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = http.ErrServerClosed
	}
	// Handlers that have answered may still have their record to write.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = front.Shutdown(grace) // what is left is closed next
	second := errors.Join(front.Close(), metrics.Close())
	<-ended
	if !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(err, second)
	}
	return nil
}

type counters struct{ requests, failures atomic.Uint64 }

// newReverseProxy is the handler: ReverseProxy with a buffer pool and a
// transport that keeps enough idle connections.
func newReverseProxy(p peers.Params) (http.Handler, *counters, error) {
	var targets []*url.URL
	for _, u := range p.Upstreams {
		targets = append(targets, &url.URL{Scheme: "http", Host: u.String()})
	}
	var turn atomic.Uint64
	transport := &http.Transport{
		// The defaults keep two idle connections a host and a hundred in all.
		MaxIdleConns:        0,
		MaxIdleConnsPerHost: p.Idle(),
		IdleConnTimeout:     10 * time.Minute,
		// Bodies go through as they are.
		DisableCompression: true,
		Protocols:          protocols(p.H2Upstream(), p.TLSUpstream()),
	}
	if p.TLSUpstream() {
		cfg, err := tlsConfig(p.Certs)
		if err != nil {
			return nil, nil, err
		}
		cfg.NextProtos = alpn(p.H2Upstream())
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(64)
		transport.TLSClientConfig = cfg
		targets[0].Scheme = "https"
	}
	count := new(counters)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			count.requests.Add(1)
			r.SetURL(targets[turn.Add(1)%uint64(len(targets))])
			r.Out.Host = r.In.Host
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
			if r.Out.Header.Get("X-Request-Id") == "" {
				r.Out.Header.Set("X-Request-Id", newRequestID())
			}
			r.Out.Header.Del("X-Forwarded-Client-Cert")
			if tls := r.In.TLS; tls != nil && len(tls.PeerCertificates) > 0 && len(tls.PeerCertificates[0].URIs) > 0 {
				r.Out.Header.Set("X-Forwarded-Client-Cert", "URI="+tls.PeerCertificates[0].URIs[0].String())
			}
		},
		Transport:  transport,
		BufferPool: &buffers{},
		ErrorLog:   log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			count.failures.Add(1)
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	return proxy, count, nil
}

// protocols are HTTP/1.1, or HTTP/2 by ALPN or, without TLS, by prior knowledge.
func protocols(h2, secure bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetHTTP2(h2 && secure)
	p.SetUnencryptedHTTP2(h2 && !secure)
	return p
}

func alpn(h2 bool) []string {
	if h2 {
		return []string{"h2"}
	}
	return []string{"http/1.1"}
}

func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	return hex.EncodeToString(b[:])
}

// buffers is ReverseProxy's pool of copy buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// accessLog writes one JSON record a request, buffered.
type accessLog struct {
	mu sync.Mutex
	to *bufio.Writer
}

func (l *accessLog) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		status := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(status, r)
		line, err := json.Marshal(struct {
			Time    time.Time `json:"time"`
			Client  string    `json:"client"`
			Method  string    `json:"method"`
			URI     string    `json:"uri"`
			Status  int       `json:"status"`
			Seconds float64   `json:"seconds"`
		}{start, r.RemoteAddr, r.Method, r.RequestURI, status.status, time.Since(start).Seconds()})
		if err != nil {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		_, _ = l.to.Write(append(line, '\n')) // a full disk must not end the run
	})
}

func (l *accessLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.to.Flush()
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
