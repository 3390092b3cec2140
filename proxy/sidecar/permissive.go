package sidecar

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
)

// plaintextRule lets in those who have no identity that intentions could be
// about.
const plaintextRule = "permissive mTLS: callers without mTLS"

// permissive lets callers without mTLS pass where that is asked for. As in Consul
// no intention is about them, since they have no name; and it is heeded in
// transparent mode only, in which they mean the application's own port.
func (t *translation) permissive(cfg *authz.Config) {
	p := &t.own.Proxy
	switch p.MutualTLSMode {
	case "", "strict":
	case "permissive":
		if p.Mode != "transparent" {
			t.find(Ignored, t.entry, "Proxy.MutualTLSMode", "is permissive, which Consul heeds in transparent mode only; mTLS is demanded", "")
			return
		}
		put(t, &t.Config.Inbound.MTLS, config.MTLSPermissive, "inbound.mtls", "Consul "+t.entry)
		if t.Config.Inbound.MTLS == config.MTLSPermissive {
			cfg.Rules = slices.Insert(cfg.Rules, 0, authz.Rule{Name: plaintextRule, From: []string{"anonymous"}})
		}
	default:
		t.find(Refused, t.entry, "Proxy.MutualTLSMode", "is "+p.MutualTLSMode+", which is not known; mTLS is demanded", "write strict or permissive")
	}
}
