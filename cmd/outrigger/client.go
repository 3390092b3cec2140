package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// Where the admin API is looked for, and its bounds.
const (
	adminDefault = "127.0.0.1:15000" // as in the configuration
	adminEnv     = "OUTRIGGER_ADMIN"
	adminTimeout = 10 * time.Second
	adminMost    = 64 << 20 // bytes of an answer
)

// client asks the admin API of a running proxy.
type client struct {
	base string
	http http.Client
}

// adminFlag gives cmd the flag that says where the admin API is.
func adminFlag(cmd *cobra.Command) {
	cmd.Flags().String("admin", adminAddress(), "the admin API of the proxy, ADDR:PORT or URL; "+adminEnv+" sets the default")
}

// adminAddress is where the admin API is if no flag says otherwise.
func adminAddress() string {
	if at := os.Getenv(adminEnv); at != "" {
		return at
	}
	return adminDefault
}

// newClient returns the client that cmd's flag asks for. Close it.
func newClient(cmd *cobra.Command) (*client, error) {
	at, err := cmd.Flags().GetString("admin")
	if err != nil {
		return nil, err
	}
	return clientAt(at)
}

// clientAt returns the client of the admin API at an address. Close it.
func clientAt(at string) (*client, error) {
	base := strings.TrimSuffix(at, "/")
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	if _, err := http.NewRequest(http.MethodGet, base, http.NoBody); err != nil {
		return nil, fmt.Errorf("--admin %q is no address; use one such as %s", at, adminDefault)
	}
	// No proxy of the environment: the admin API is on this machine.
	return &client{base: base, http: http.Client{Timeout: adminTimeout, Transport: &http.Transport{}}}, nil
}

func (c *client) Close() { c.http.CloseIdleConnections() }

// get reads a page as JSON into v.
func (c *client) get(ctx context.Context, path string, v any) error {
	return c.do(ctx, http.MethodGet, path, nil, v)
}

// post sends body as JSON and reads the answer into v.
func (c *client) post(ctx context.Context, path string, body, v any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, path, b, v)
}

// text writes a page as text to w.
func (c *client) text(ctx context.Context, path string, w io.Writer) error {
	b, err := c.fetch(ctx, http.MethodGet, path, nil, "text/plain")
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

func (c *client) do(ctx context.Context, method, path string, body []byte, v any) error {
	b, err := c.fetch(ctx, method, path, body, "application/json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s does not answer as the admin API of an outrigger of this version: %w", c.base, err)
	}
	return nil
}

// fetch returns what the admin API answers, in the form that accept names.
func (c *client) fetch(ctx context.Context, method, path string, body []byte, accept string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, adminMost))
	if err != nil {
		return nil, fmt.Errorf("the answer of %s broke off: %w", c.base, err)
	}
	if resp.StatusCode != http.StatusOK {
		if text := strings.TrimSpace(string(b)); text != "" && len(text) < 1000 && (resp.StatusCode < 500 || resp.StatusCode == http.StatusServiceUnavailable) && resp.StatusCode != http.StatusMethodNotAllowed {
			return nil, errors.New(admin.Plain(text))
		}
		return nil, fmt.Errorf("%s answered %s to %s %s; is it the admin API of an outrigger of this version?", c.base, resp.Status, method, path)
	}
	return b, nil
}

func (c *client) unreachable(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("no admin API at %s: %w; --admin or %s says where it is", c.base, op.Err, adminEnv)
	}
	return err
}

// writeJSON writes v as the admin API does.
func writeJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
