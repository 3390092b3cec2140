package consul

import (
	"context"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
)

// Token returns the present ACL token, "" for the anonymous one. A token file is read again.
func (c *Client) Token() (string, error) { return c.client.tokens.get() }

// Address is where the HTTP API is: http://host:port, https://host:port or unix:///path.
func (c *Client) Address() string {
	if a, err := parseAddress(c.client.where); err == nil && a.scheme == "" {
		return c.client.scheme + "://" + c.client.where
	}
	return c.client.where
}

// Close ends idle connections, for who uses the client without Run.
func (c *Client) Close() { c.client.close() }

// Get returns the JSON answer for path.
func (c *Client) Get(ctx context.Context, path string, params map[string]string) ([]byte, error) {
	r, err := c.Ask(ctx, Query{Path: path, Params: params, Need: "what " + path + " asks for"})
	return r.Body, err
}

// Follow gives take the JSON answer for path, and every newer one, until ctx ends, a query fails or take does.
func (c *Client) Follow(ctx context.Context, path string, params map[string]string, take func([]byte) error) error {
	q := Query{Path: path, Params: params, Need: "what " + path + " asks for"}
	var at mark
	for {
		r, err := c.ask(ctx, c.client.tokens.valid(), q, at, time.Time{})
		if err == nil {
			err = take(r.Body)
		}
		if err != nil {
			return err
		}
		pause := minPause
		if at = at.next(mark{index: r.Index}); at.none() {
			pause = pollPause
		}
		if !discovery.Sleep(ctx, pause, nil) {
			return ctx.Err()
		}
	}
}

// ownOr returns the client inside one that is shared, or a new one.
func ownOr(shared *Client, cfg Config) (*client, error) {
	if shared != nil {
		return shared.client, nil
	}
	return newClient(cfg, nil)
}
