package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// Client asks Consul for what a Source does not: by the same rules, with the
// same token, and with answers that the caller decodes, because the types of
// Consul's own client leave out fields.
type Client struct {
	cfg    Config
	client *client
}

// NewClient returns a Client for the agent that cfg names. Nothing is sent.
func NewClient(cfg Config) (*Client, error) { return NewClientVia(cfg, nil) }

// NewClientVia is NewClient with another way to the agent than the network.
func NewClientVia(cfg Config, via http.RoundTripper) (*Client, error) {
	c, err := newClient(cfg, via)
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, client: c}, nil
}

// Run keeps the token fresh until ctx ends, and then closes the connections. A
// token from a login is given back when the last Run of those that share the
// client has ended.
func (c *Client) Run(ctx context.Context) {
	defer c.client.close()
	defer c.client.hold()()
	c.client.keep(ctx)
	<-ctx.Done()
}

// Shares reports whether many queries that wait share a connection, as they do
// over HTTP/2, which Consul speaks over TLS only.
func (c *Client) Shares() bool { return c.client.base != nil && c.client.scheme == "https" }

// Where is the address of the agent, for messages.
func (c *Client) Where() string { return c.client.where }

// TokenChanged returns a channel that is closed when the token changes.
func (c *Client) TokenChanged() <-chan struct{} { return c.client.tokens.valid().Done() }

// Anonymous reports whether there is no token at all.
func (c *Client) Anonymous() bool { return c.client.tokens.anonymous() }

// Query is a question to Consul's HTTP API.
type Query struct {
	// Path, such as "/v1/catalog/services"; segments are escaped by the caller.
	Path string
	// Params are those of the URL; empty values are left out.
	Params map[string]string
	// Body is sent as JSON, unless it is nil.
	Body any
	// Method of the request. Default: POST with a body, GET without one.
	Method string
	// Need is what the token must be allowed, for messages.
	Need string
	// Optional says that 404 is an answer: there is no such thing.
	Optional bool
	// ByHash says that Consul waits for another hash, not for another index.
	ByHash bool
	// Fresh says that only the leader's answer will do.
	Fresh bool
	// Cached says that what the agent itself keeps will do, where it keeps
	// this; it learns of changes a moment after the servers.
	Cached bool
}

// Reply is the answer to a Query.
type Reply struct {
	Body    []byte // JSON
	Index   uint64
	Hash    string
	Missing bool // 404, where that is an answer
	// Hidden says that ACLs kept something out of the answer.
	Hidden bool
	// DefaultPolicy is that of Consul's ACLs, "allow" or "deny"; empty when
	// Consul does not say.
	DefaultPolicy string
}

// Ask asks once, without waiting for a change.
func (c *Client) Ask(ctx context.Context, q Query) (Reply, error) {
	return c.ask(ctx, context.Background(), q, mark{}, time.Time{})
}

// Walk asks a query again and again and knows how far it has come.
type Walk struct {
	c *Client
	w walk
}

// Walk returns one that begins with an answer at once.
func (c *Client) Walk() *Walk { return &Walk{c: c, w: newWalk(c.client)} }

// Again makes the next step begin from the beginning, with an answer at once.
func (w *Walk) Again() { w.w.at = mark{} }

// Step asks q once. A step after one with an answer waits until there is a
// newer one or some minutes have passed. take gets the answer; it returns the
// number of instances in it, which stretch the pause, or why the answer cannot
// be used. fail gets what went wrong, take's error among it. Step returns how
// long to wait before the next one, and a channel that ends that wait.
func (w *Walk) Step(ctx context.Context, q Query, take func(Reply) (int, error), fail func(error)) (time.Duration, <-chan struct{}) {
	pause, token := w.w.step(ctx, func(ctx, token context.Context, at mark, after time.Time) (mark, int, error) {
		r, err := w.c.ask(ctx, token, q, at, after)
		if err != nil {
			return mark{}, 0, err
		}
		n, err := take(r)
		if err != nil {
			return mark{}, 0, w.c.client.explain(err, q.Need)
		}
		return mark{r.Index, r.Hash}, n, nil
	}, fail)
	return pause, token.Done()
}

// ask asks once; with a mark Consul answers when there is something newer, or
// after the wait time.
func (c *Client) ask(ctx, token context.Context, q Query, at mark, after time.Time) (Reply, error) {
	limit := slack
	if !at.none() {
		limit += waitTime + waitTime/16 // what Consul may add
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if !at.none() && !after.IsZero() {
		ctx = refuseNewConn(ctx, after)
	}
	defer context.AfterFunc(token, cancel)()

	req, err := c.request(ctx, q, at)
	if err != nil {
		return Reply{}, c.client.explain(err, q.Need)
	}
	resp, err := c.client.http.Do(req)
	if err != nil {
		return Reply{}, c.client.explain(err, q.Need)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	missing := resp.StatusCode == http.StatusNotFound && q.Optional
	if err == nil && resp.StatusCode != http.StatusOK && !missing {
		err = api.StatusError{Code: resp.StatusCode, Body: string(bytes.TrimSpace(body))}
	}
	if err != nil {
		return Reply{}, c.client.explain(err, q.Need)
	}
	r := Reply{
		Body: body, Missing: missing,
		Hash:          resp.Header.Get("X-Consul-Contenthash"),
		Hidden:        resp.Header.Get("X-Consul-Results-Filtered-By-Acls") == "true",
		DefaultPolicy: resp.Header.Get("X-Consul-Default-Acl-Policy"),
	}
	if !q.ByHash {
		r.Hash = ""
		// What is no number is 0, which starts from the beginning.
		r.Index, _ = strconv.ParseUint(resp.Header.Get("X-Consul-Index"), 10, 64)
	}
	return r, nil
}

func (c *Client) request(ctx context.Context, q Query, at mark) (*http.Request, error) {
	v := url.Values{}
	set := func(key, value string) {
		if value != "" {
			v.Set(key, value)
		}
	}
	set("ns", c.client.namespace)
	set("partition", c.client.partition)
	for key, value := range q.Params {
		set(key, value)
	}
	switch {
	case q.Cached:
		v.Set("cached", "")
	case c.cfg.Stale && !q.Fresh:
		v.Set("stale", "")
	}
	if !at.none() {
		v.Set("wait", waitTime.String())
		if at.hash != "" {
			v.Set("hash", at.hash)
		} else {
			v.Set("index", strconv.FormatUint(at.index, 10))
		}
	}
	method, body := http.MethodGet, io.Reader(nil)
	if q.Body != nil {
		b, err := json.Marshal(q.Body)
		if err != nil {
			return nil, err
		}
		method, body = http.MethodPost, bytes.NewReader(b)
	}
	if q.Method != "" {
		method = q.Method
	}
	target := c.client.scheme + "://" + c.client.host + c.client.prefix + q.Path
	if len(v) > 0 {
		target += "?" + v.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("the question cannot be asked: %w", err)
	}
	if a := c.client.auth; a != nil {
		req.SetBasicAuth(a.Username, a.Password)
	}
	return req, nil
}
