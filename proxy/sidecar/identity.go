package sidecar

import (
	"path/filepath"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/mtls/consulca"
)

// identity takes the certificate from Consul's CA, unless the file has it from
// elsewhere: then Consul only says what is called and where that is.
func (t *translation) identity() {
	i, from := &t.Config.Identity, "Consul "+t.entry
	if i.Configured() && i.Consul == nil {
		return
	}
	const at = "identity.consul"
	if i.Consul == nil {
		c := consulca.Default()
		i.Consul = &c
		t.Came(at, from)
	}
	c := i.Consul
	put(t, &c.Service, t.own.Proxy.DestinationServiceName, at+".service", from+" Proxy.DestinationServiceName")
	put(t, &c.Datacenter, t.s.Datacenter, at+".datacenter", from+" Datacenter")
	if t.own.Namespace != "" {
		put(t, &c.Namespace, t.own.Namespace, at+".namespace", from+" Namespace")
	}
	if t.own.Partition != "" {
		put(t, &c.Partition, t.own.Partition, at+".partition", from+" Partition")
	}
	if kept := t.Config.Discovery.Snapshot; kept != "" {
		if path, err := filepath.Abs(kept + ".identity"); err == nil {
			put(t, &c.Snapshot, path, at+".snapshot", "beside discovery.snapshot")
		}
	}
}

// ConsulIdentity reports whether certificates are those of Consul's CA, and not
// of another mesh that only finds its services in Consul.
func ConsulIdentity(i *config.Identity) bool { return i.Consul != nil }
