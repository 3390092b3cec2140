package compile

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

const faulted = `
service:   {name: web, port: 8080}
identity:  {files: {cert: a, key: b, bundle: c}}
discovery: {file: {path: catalog.yaml}}
outbound:
  upstreams:
    - {service: api, listen: "127.0.0.1:9001"}
faults:
  allow: true
  rules:
    - {name: out, to: api, match: {path_prefix: /pay}, endpoint: "10.0.0.1:80", inject: {abort: 503}, for: 1m}
    - {name: in, inbound: true, from: ["spiffe://a/b"], inject: {reset: true}}
`

func TestFaults(t *testing.T) {
	in := input(t, faulted)
	p, _ := build(t, in)
	if len(p.Faults) != 2 {
		t.Fatalf("%d faults", len(p.Faults))
	}
	out, self := p.Faults[0], p.Faults[1]
	if out.Cluster != "api" || out.Direction != telemetry.Outbound || !out.OnlyHTTP || out.Endpoint != "10.0.0.1:80" || out.For != time.Minute ||
		out.Config.Abort != 503 || out.Conditions != "path_prefix /pay" || out.Match.Path.Value != "/pay" {
		t.Errorf("%+v", out)
	}
	if self.Cluster != "web" || self.Direction != telemetry.Inbound || self.OnlyHTTP || self.Conditions != "" || len(self.From) != 1 || self.Text == out.Text {
		t.Errorf("%+v", self)
	}
	f, err := in.Loaded.Config.ParseFault([]byte(`{to: api, match: {path_regex: "/a+"}, inject: {delay: 1s}}`))
	if err != nil {
		t.Fatal(err)
	}
	if pf, err := Fault(in.Loaded, f); err != nil || pf.Match.Path.Regexp == nil {
		t.Errorf("%+v, %v", pf, err)
	}
	f.Match.PathRegex = "("
	var problems config.Problems
	if _, err := Fault(in.Loaded, f); !errors.As(err, &problems) || !strings.Contains(err.Error(), "path_regex") {
		t.Errorf("%v", err)
	}
}
