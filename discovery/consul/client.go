package consul

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	// maxBody bounds an answer: about 50,000 instances.
	maxBody = 64 << 20
	// bodyTime bounds how long the body of an answer may take after its head.
	bodyTime = 30 * time.Second
	// slack is what a query may take beyond the time that the server waits.
	slack = 20 * time.Second
)

var (
	errNewConn   = errors.New("the connection to the agent is a new one")
	errBodySlow  = fmt.Errorf("the answer did not end within %v", bodyTime)
	errBodyLarge = fmt.Errorf("the answer has more than %d bytes", maxBody)
)

// client is Consul's API client with bounded answers and a token that may change.
type client struct {
	*api.Client
	tokens *tokens
	where  string // for messages
	base   *http.Transport

	// What questions that the API client has no method for are asked with.
	http                 *http.Client
	scheme, host, prefix string
	namespace, partition string
	auth                 *api.HttpBasicAuth
}

// newClient makes a client from the configuration and, where that is silent,
// from the CONSUL_* environment. A non-nil via replaces the network; tests use it.
func newClient(cfg Config, via http.RoundTripper) (*client, error) {
	var errs []error
	cfg.Validate(func(field, problem string) { errs = append(errs, fmt.Errorf("discovery.consul.%s %s", field, problem)) })
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	ac := api.DefaultConfig()
	if cfg.Address != "" {
		ac.Address = cfg.Address
	}
	if strings.HasPrefix(cfg.Address, "http://") {
		ac.Scheme = "http" // more specific than CONSUL_HTTP_SSL
	}
	set := func(to *string, from string) {
		if from != "" {
			*to = from
		}
	}
	set(&ac.TLSConfig.CAFile, cfg.TLS.CAFile)
	set(&ac.TLSConfig.CertFile, cfg.TLS.CertFile)
	set(&ac.TLSConfig.KeyFile, cfg.TLS.KeyFile)
	set(&ac.TLSConfig.Address, cfg.TLS.ServerName)

	c := &client{tokens: newTokens(cfg), where: ac.Address, base: ac.Transport}
	// One idle connection a watch instead of a new one for every query.
	c.base.MaxIdleConns, c.base.MaxIdleConnsPerHost = 0, 256
	c.base.ForceAttemptHTTP2 = true
	c.base.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second}
	tc, err := api.SetupTLSConfig(&ac.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("discovery.consul.tls: %w", err)
	}
	tc.MinVersion = tls.VersionTLS12
	if cert, key := ac.TLSConfig.CertFile, ac.TLSConfig.KeyFile; cert != "" && key != "" {
		tc.Certificates = nil
		tc.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert, key)
			return &pair, err
		}
	}
	c.base.TLSClientConfig = tc
	if path, ok := strings.CutPrefix(ac.Address, "unix://"); ok {
		c.base.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		ac.Address = "localhost" // the Host header; the path is dialled
	}
	dial := c.base.DialContext
	c.base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &stamped{Conn: conn, made: time.Now()}, nil
	}
	if via == nil {
		via = c.base
	}
	ac.HttpClient = &http.Client{
		Transport: &transport{via: via, tokens: c.tokens},
		// Consul does not redirect; following one would carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	// The transport sets the token of each request. This value, which is never
	// sent, only keeps NewClient from reading a token file and failing for it.
	ac.Token, ac.TokenFile = "set by the transport", ""
	if c.Client, err = api.NewClient(ac); err != nil {
		return nil, fmt.Errorf("discovery.consul: %w", err)
	}
	// NewClient has completed what it was given.
	c.http, c.scheme, c.host, c.prefix = ac.HttpClient, ac.Scheme, ac.Address, ac.PathPrefix
	c.namespace, c.partition, c.auth = ac.Namespace, ac.Partition, ac.HttpAuth
	return c, nil
}

// close ends the idle connections.
func (c *client) close() { c.base.CloseIdleConnections() }

// explain words an error for an operator, with a remedy where one is known.
// need is what the token must be allowed.
func (c *client) explain(err error, need string) error {
	var status api.StatusError
	if !errors.As(err, &status) {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL says nothing that where does not
		}
		return fmt.Errorf("consul at %s: %w", c.where, err)
	}
	if len(status.Body) > 200 {
		status.Body = status.Body[:200] + "…"
	}
	if isUnknown(status) {
		c.tokens.session.unknown()
	}
	remedy := ""
	switch status.Code {
	case http.StatusForbidden:
		remedy = "; the ACL token needs " + need
		if p := c.tokens.problem(); p != nil {
			remedy += "; " + p.Error()
		}
	case http.StatusTooManyRequests:
		remedy = "; raise limits.http_max_conns_per_client of the agent, or use https, which shares one connection"
	}
	return fmt.Errorf("consul at %s answered %w%s", c.where, status, remedy)
}

// stamped is a connection that knows when it was made.
type stamped struct {
	net.Conn
	made time.Time
}

// notAfter is the key of the time in the contexts of refuseNewConn.
type notAfter struct{}

// refuseNewConn returns a context whose requests fail with errNewConn when
// they get a connection made later than after.
func refuseNewConn(ctx context.Context, after time.Time) context.Context {
	return context.WithValue(ctx, notAfter{}, after)
}

// watchConn cancels a request with errNewConn as refuseNewConn wants it.
func watchConn(ctx context.Context, cancel context.CancelCauseFunc) context.Context {
	after, ok := ctx.Value(notAfter{}).(time.Time)
	if !ok {
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		conn := info.Conn
		if t, ok := conn.(*tls.Conn); ok {
			conn = t.NetConn()
		}
		if s, ok := conn.(*stamped); ok && s.made.After(after) {
			cancel(errNewConn)
		}
	}})
}

// transport sets the token of each request and bounds its answer.
type transport struct {
	via    http.RoundTripper
	tokens *tokens
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	var token string
	var err error
	if own, ok := req.Context().Value(ownToken{}).(string); ok {
		token = own
	} else {
		token, err = t.tokens.get()
	}
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	req = req.Clone(watchConn(ctx, cancel))
	req.Header.Del("X-Consul-Token")
	if token != "" {
		req.Header.Set("X-Consul-Token", token)
	}
	resp, err := t.via.RoundTrip(req)
	if err != nil {
		if context.Cause(ctx) == errNewConn {
			err = errNewConn
		}
		cancel(nil)
		return nil, err
	}
	timer := time.AfterFunc(bodyTime, func() { cancel(errBodySlow) })
	resp.Body = &body{ReadCloser: resp.Body, ctx: ctx, left: maxBody, end: func() { timer.Stop(); cancel(nil) }}
	return resp, nil
}

// body is the bounded body of an answer.
type body struct {
	io.ReadCloser
	ctx  context.Context
	left int64
	end  func()
}

func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errBodyLarge
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if cause := context.Cause(b.ctx); err != nil && err != io.EOF && (cause == errBodySlow || cause == errNewConn) {
		err = cause
	}
	return n, err
}

func (b *body) Close() error {
	b.end()
	return b.ReadCloser.Close()
}
