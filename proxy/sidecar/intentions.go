package sidecar

import (
	"github.com/outrigger-mesh/outrigger/mtls/authz"
)

// intentions makes the authorization: allow rules where nothing but these is
// needed, and no to all where more is.
func (t *translation) intentions() {
	dst, from := &t.Config.Authorization, "Consul intentions"
	if t.Config.Service.Port == 0 {
		return
	}
	var rules []authz.Rule
	plain := !t.s.DefaultAllow
	for _, i := range t.s.Intentions {
		if i.Action != "allow" || len(i.Permissions) > 0 || i.JWT != nil || len(i.Unknown) > 0 || i.SourcePeer != "" || i.SourceName == "*" {
			plain = false
		}
		rules = append(rules, authz.Rule{
			Name: i.SourceName + " => " + i.DestinationName,
			From: []string{"spiffe://" + t.s.TrustDomain + "/ns/default/dc/" + t.s.Datacenter + "/svc/" + i.SourceName},
		})
	}
	switch {
	case t.s.DefaultAllow && len(rules) == 0:
		return
	case plain && len(rules) > 0:
	default:
		rules = []authz.Rule{{Name: "not understood", Action: authz.Deny, From: []string{"*"}}}
		if len(t.s.Intentions) > 0 {
			t.find(Refused, "intentions for "+t.own.Proxy.DestinationServiceName, "", "need more than is understood here; all callers are refused", "")
		}
	}
	must(t, dst, authz.Config{Rules: rules}, "authorization", from)
}
