package consulca

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
)

// Client is Consul's HTTP API, and the ACL token for both APIs.
type Client interface {
	// Token returns the present ACL token, "" for the anonymous one.
	Token() (string, error)
	// Address is where the API is: http://host:port, https://host:port or unix:///path.
	Address() string
	// Close ends idle connections.
	Close()
	// Get returns the JSON answer for path.
	Get(ctx context.Context, path string, params map[string]string) ([]byte, error)
	// Follow gives take the JSON answer for path, and every newer one, until ctx ends, a query fails or take does.
	Follow(ctx context.Context, path string, params map[string]string, take func([]byte) error) error
}

// agent takes key and certificate from the agent's HTTP API.
type agent struct{ client Client }

func (a *agent) method() Method { return MethodLeaf }

// issue is not what the agent does: watch gives the leaf, which the agent renews.
func (a *agent) issue(context.Context, place, string) (*leaf, error) { return nil, nil }

// watch gives roots and leaf, and whatever follows them, until ctx ends or a query fails.
func (a *agent) watch(ctx context.Context, p place, got func(event)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	rootsEnded := make(chan struct{})
	go func() {
		defer close(rootsEnded)
		cancel(follow(ctx, a.client, "/v1/agent/connect/ca/roots", p, func(answer *rootsAnswer) error {
			r, err := answer.roots()
			if err == nil {
				got(event{roots: r})
			}
			return err
		}))
	}()
	cancel(follow(ctx, a.client, "/v1/agent/connect/ca/leaf/"+url.PathEscape(p.service), p, func(answer *leafAnswer) error {
		l, err := answer.leaf()
		if err == nil {
			got(event{leaf: l})
		}
		return err
	}))
	<-rootsEnded
	return context.Cause(ctx) // of the first that has ended
}

func follow[A any](ctx context.Context, c Client, path string, p place, take func(*A) error) error {
	return c.Follow(ctx, path, p.params(), func(body []byte) error {
		var answer A
		err := json.Unmarshal(body, &answer)
		if err == nil {
			err = take(&answer)
		}
		if err != nil {
			return fmt.Errorf("consul at %s: %s: %w", c.Address(), path, err)
		}
		return nil
	})
}

// params say in which namespace and partition a query is meant.
func (p place) params() map[string]string {
	params := map[string]string{}
	if p.namespace != "default" {
		params["ns"] = p.namespace
	}
	if p.partition != "default" {
		params["partition"] = p.partition
	}
	return params
}

type rootsAnswer struct {
	ActiveRootID, TrustDomain string
	Roots                     []struct{ ID, RootCert string }
}

func (a *rootsAnswer) roots() (*roots, error) {
	if len(a.Roots) > maxRoots {
		return nil, errTooMany
	}
	list := make([]rootMessage, len(a.Roots))
	for i, r := range a.Roots {
		list[i] = rootMessage{id: r.ID, cert: r.RootCert}
	}
	// The agent writes the host of the URI in the case of its cluster's ID; SPIFFE's is lower.
	return newRoots(strings.ToLower(a.TrustDomain), a.ActiveRootID, list)
}

type leafAnswer struct{ CertPEM, PrivateKeyPEM string }

func (a *leafAnswer) leaf() (*leaf, error) {
	key, err := parseKey([]byte(a.PrivateKeyPEM))
	if err != nil {
		return nil, err
	}
	return newLeaf([]byte(a.CertPEM), key, MethodLeaf)
}

// datacenter asks in which datacenter the agent is, by what every token of the service may read.
func datacenter(ctx context.Context, c Client, p place) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, signTime)
	defer cancel()
	body, err := c.Get(ctx, "/v1/discovery-chain/"+url.PathEscape(p.service), p.params())
	var answer struct{ Chain struct{ Datacenter string } }
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil {
		return "", fmt.Errorf("asking for the datacenter: %w; or write identity.consul.datacenter", err)
	}
	if dc := answer.Chain.Datacenter; dc != "" && segment(dc) {
		return dc, nil
	}
	return "", fmt.Errorf("consul names the datacenter %q; write identity.consul.datacenter", answer.Chain.Datacenter)
}
