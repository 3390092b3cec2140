package exchange_test

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// The reasons below no test of processes can provoke at will (see TestWhy in
// internal/e2e). What is asked of each of them is the same: the caller is told,
// and the ledger has an entry from which the story is made.

// A proxy that has lost its identity says so, and blames no endpoint.
func TestReasonNoIdentity(t *testing.T) {
	b := newBed(t, mtlsUp, func(s *setup) { s.policy.Retry = retrying(3) })
	o := b.start(answering(okResponse))
	id, err := mtls.ParseID(originID)
	if err != nil {
		t.Fatal(err)
	}
	b.spec.TLS = mtls.ClientConfig(mtls.NewFeed("none"), mtls.ClientOptions{Expected: []mtls.ID{id}})
	b.spec.Transport = "mtls without identity"
	b.apply(func(*upstream.Policy) {})
	c := b.dial()
	c.get("/pay")
	head, body := c.reply(503, outcome.NoIdentity.String())
	if !strings.Contains(body, "This proxy has no valid SVID.") || !strings.Contains(head, "error=proxy_internal_error") {
		t.Errorf("%s\n%s", head, body)
	}
	e := b.kept(outcome.NoIdentity)
	if len(e.Attempts) != 1 || e.Attempts[0].Endpoint != o.addr.String() || e.Attempts[0].Reason != outcome.NoIdentity || e.Detail == "" || string(e.Path) != "/pay" {
		t.Errorf("%+v", e)
	}
	if n := failures(b); n != 0 || o.heads.Load() != 0 {
		t.Errorf("%d failures are held against the endpoint, which saw %d requests", n, o.heads.Load())
	}
}

// A proxy without memory says so before anything is tried.
func TestReasonOverload(t *testing.T) {
	m := short(memory.Shed)
	b := newBed(t, plain, func(s *setup) { s.memory = m })
	b.start(answering(okResponse))
	c := b.dial()
	c.get("/pay")
	c.reply(503, outcome.Overload.String())
	if e := b.kept(outcome.Overload); e.AttemptCount != 0 || e.Status != 503 || string(e.Path) != "/pay" || e.Cluster != "api" {
		t.Errorf("%+v", e)
	}
}
