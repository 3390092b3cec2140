package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

// entryFields are those of any config entry, which say nothing to a proxy.
type entryFields struct {
	Kind                      string
	Meta                      map[string]string
	Namespace, Partition      string
	CreateIndex, ModifyIndex  uint64
	Hash                      uint64
	RaftIndex, EnterpriseMeta any
}

// intentionFields are those of an intention that say nothing to a proxy.
type intentionFields struct {
	CreatedAt, UpdatedAt     any
	Meta                     map[string]string
	CreateIndex, ModifyIndex uint64
	Hash                     any
	LegacyID                 string
}

// strictly decodes b into v. Fields that v does not have, and values that it
// cannot hold, are returned as unknown; then as much as can be is decoded.
func strictly(b []byte, v any) (unknown []string, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err = d.Decode(v); err == nil {
		return nil, nil
	}
	what := err.Error()
	if _, field, ok := strings.Cut(what, "unknown field "); ok {
		what = strings.Trim(field, `"`)
	}
	var wrong *json.UnmarshalTypeError
	if err = json.Unmarshal(b, v); err != nil && !errors.As(err, &wrong) {
		return nil, err
	}
	return []string{what}, nil
}

// intentionsWatch follows the intentions for the own service.
func (f *Follower) intentionsWatch(reg *Registration) *watch {
	own := reg.OwnService()
	return &watch{
		name: "sidecar/intentions", key: own + "/" + reg.Namespace + "/" + reg.Partition,
		query: consul.Query{
			Path: "/v1/connect/intentions/match", Need: "intentions:read on " + own,
			Params: reg.in("", "", "by", "destination", "name", own, "dc", f.cfg.Datacenter),
		},
		take: func(r consul.Reply) (int, error) {
			list, err := readIntentions(r.Body, own)
			if err != nil {
				return 0, err
			}
			allow, known := f.defaultPolicy(own, r.DefaultPolicy)
			f.imply(func(s *state) {
				s.intentions, s.matched = list, true
				if known || !s.policy {
					s.defaultAllow, s.policy = allow, true
				}
			})
			return len(list), nil
		},
	}
}

// readIntentions decodes the intentions for a service. One with a field that
// is not known is kept and marked.
func readIntentions(body []byte, own string) ([]Intention, error) {
	var answer map[string][]json.RawMessage
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	raw, ok := answer[own]
	if !ok {
		return nil, fmt.Errorf("the intentions for %q are not in the answer", own)
	}
	list := make([]Intention, 0, len(raw))
	for _, b := range raw {
		var known struct {
			Intention
			intentionFields
		}
		unknown, err := strictly(b, &known)
		if err != nil {
			return nil, err
		}
		known.Intention.Unknown = unknown
		list = append(list, known.Intention)
	}
	return list, nil
}

// probeSource is a service that is nowhere, as which nobody calls.
const probeSource = "outrigger-asks-for-the-default"

// defaultPolicy returns what holds where no intention does, and whether Consul
// was clear about it: the policy of its ACLs, unless servers have an own one
// for intentions (default_intention_policy), which only an authorization that
// is asked for shows.
func (f *Follower) defaultPolicy(own, header string) (allow, known bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	f.mu.Lock()
	trust, dc := f.state.trustDomain, ""
	if f.state.reg != nil {
		dc = f.state.reg.Datacenter
	}
	f.mu.Unlock()
	if trust == "" {
		trust = "unknown.consul"
	}
	r, err := f.client.Ask(ctx, consul.Query{
		Path: "/v1/agent/connect/authorize", Need: "service:write on " + own, Fresh: true,
		Body: map[string]string{
			"Target":        own,
			"ClientCertURI": fmt.Sprintf("spiffe://%s/ns/default/dc/%s/svc/%s", trust, dc, probeSource), "ClientCertSerial": "1",
		},
	})
	var answer struct {
		Authorized bool
		Reason     string
	}
	if err == nil && json.Unmarshal(r.Body, &answer) == nil && strings.Contains(strings.ToLower(answer.Reason), "default") {
		return answer.Authorized, true
	}
	return header == "allow", false
}
