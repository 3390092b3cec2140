package sidecar

import (
	"fmt"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
)

// Envoy's sizes of a ring, which hold where Consul gives none.
const (
	envoyMinRing = 1024
	envoyMaxRing = 8 << 20
)

// loadBalancer says how an instance of a target is chosen. Without a policy in
// Consul it is this proxy's own.
func (c *chain) loadBalancer(name string, p *config.Policy, n *mesh.Node) {
	lb, at := n.LoadBalancer, config.PolicyPath(name)+".balance"
	if lb == nil || lb.Policy == "" || c.Given(at+".algorithm") {
		return
	}
	entry := c.resolver(n)
	from := entry + " LoadBalancer"
	set := func(a balance.Algorithm) {
		p.Balance.Algorithm, p.Balance.Hash, p.Balance.BoundedLoadPercent = a, nil, 0
		c.Came(at+".algorithm", from+".Policy")
	}
	switch lb.Policy {
	case "random":
		set(balance.Random)
	case "round_robin":
		set(balance.WeightedRoundRobin)
	case "least_request":
		set(balance.LeastRequest)
		if l := lb.LeastRequestConfig; l != nil && l.ChoiceCount > 0 {
			put(c.translation, &p.Balance.Choices, int(min(l.ChoiceCount, 1<<16)), at+".choices", from+".LeastRequestConfig.ChoiceCount")
		} else {
			put(c.translation, &p.Balance.Choices, 2, at+".choices", byEnvoy)
		}
	case "ring_hash", "maglev":
		hash := c.hash(entry[len("Consul "):], lb)
		if len(hash) == 0 {
			set(balance.Random) // Envoy has nothing to go by either
			return
		}
		if set(balance.Maglev); lb.Policy == "ring_hash" {
			set(balance.RingHash)
			least, most := uint64(envoyMinRing), uint64(envoyMaxRing)
			if r := lb.RingHashConfig; r != nil && r.MinimumRingSize > 0 {
				least = min(r.MinimumRingSize, envoyMaxRing)
			}
			if r := lb.RingHashConfig; r != nil && r.MaximumRingSize > 0 {
				most = min(r.MaximumRingSize, envoyMaxRing)
			}
			put(c.translation, &p.Balance.MinRingSize, int(least), at+".min_ring_size", from+".RingHashConfig")
			put(c.translation, &p.Balance.MaxRingSize, int(max(least, most)), at+".max_ring_size", from+".RingHashConfig")
		}
		p.Balance.Hash, p.Balance.ORCA = hash, nil
		c.Came(at+".hash", from+".HashPolicies")
	default:
		c.find(Refused, entry[len("Consul "):], "LoadBalancer.Policy", fmt.Sprintf("is %q, which is not known; instances are chosen by %s", lb.Policy, p.Balance.Algorithm), "")
	}
}

// maxHash is how many things a request may be known by.
const maxHash = 16

// hash is what a request is known by.
func (c *chain) hash(entry string, lb *mesh.LoadBalancer) (list []balance.HashOn) {
	for i := range lb.HashPolicies {
		h := &lb.HashPolicies[i]
		field := fmt.Sprintf("LoadBalancer.HashPolicies[%d]", i)
		one := balance.HashOn{Combine: !h.Terminal}
		switch {
		case h.SourceIP:
			one.SourceIP = true
		case !c.up.Protocol.HTTP():
			c.find(Differs, entry, field, fmt.Sprintf("is by %s, which a connection of %s has not; it is left out", h.Field, c.up.Protocol), "use SourceIP")
			continue
		case h.Field == "header":
			one.Header = h.FieldValue
			if h.FieldValue == ":authority" {
				one.Header = "host"
			}
		case h.Field == "query_parameter":
			one.Query = h.FieldValue
		case h.Field == "cookie":
			// Envoy's has no Secure: the application calls in the clear.
			one.Cookie = &balance.HashCookie{Name: h.FieldValue, Path: "/", Insecure: true}
			if k := h.CookieConfig; k != nil {
				one.Cookie.Session, one.Cookie.TTL = k.Session, time.Duration(k.TTL).Round(time.Second)
				if k.Path != "" {
					one.Cookie.Path = k.Path
				}
			}
		default:
			c.find(Refused, entry, field+".Field", fmt.Sprintf("is %q, which is not known; it is left out", h.Field), "")
			continue
		}
		p := firstProblem(one)
		if one.Cookie != nil && p == "" {
			p = firstProblem(*one.Cookie)
		}
		if p != "" || len(list) == maxHash {
			c.find(Refused, entry, field, "is left out: "+p, "")
			continue
		}
		list = append(list, one)
	}
	return list
}
