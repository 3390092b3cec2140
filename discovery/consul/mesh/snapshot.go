package mesh

// Snapshot is all that is known about a sidecar at one moment, apart from
// instances. It is immutable once handed over.
type Snapshot struct {
	// Proxy is the sidecar's registration.
	Proxy Registration
	// TrustDomain is that of the mesh, such as "<uuid>.consul".
	TrustDomain string
	// Datacenter is the sidecar's own.
	Datacenter string
	// Chains are the compiled chains, by the name of the upstream (UpstreamName).
	// Upstreams of prepared queries have none. In transparent mode those of
	// the services that the application may call without naming them are here, too.
	Chains map[string]*Chain
	// Failures say of upstreams without a usable chain why, in Consul's words.
	Failures map[string]string
	// Intentions are those for the own service, the most precise first.
	Intentions []Intention
	// DefaultAllow is what holds where no intention does.
	DefaultAllow bool
	// Providers are the jwt-provider entries, by name.
	Providers map[string]*JWTProvider
	// Mesh is the mesh entry.
	Mesh MeshEntry
	// Destinations are in transparent mode what the mesh has outside of it, behind
	// terminating gateways.
	Destinations []Destination `json:",omitempty"`
	// Stale is set while the data come from disk and Consul has not confirmed them.
	Stale bool
}

// UpstreamName names what an upstream leads to, in the configuration, in metrics
// and in messages: the service; with "query." before it a prepared query; with
// its namespace, partition and datacenter, or its peer, behind it where that is
// not the sidecar's own.
func UpstreamName(u *Upstream, own *Registration) string {
	name := u.DestinationName
	if u.DestinationType == "prepared_query" {
		name = "query." + name
	}
	if ns := u.DestinationNamespace; ns != "" && ns != orDefault(own.Namespace) {
		name += ".ns-" + ns
	}
	if ap := u.DestinationPartition; ap != "" && ap != orDefault(own.Partition) {
		name += ".ap-" + ap
	}
	switch {
	case u.DestinationPeer != "":
		name += ".peer-" + u.DestinationPeer
	case u.Datacenter != "" && u.Datacenter != own.Datacenter:
		name += ".dc-" + u.Datacenter
	}
	return name
}

// TargetName names a target in the same manner: the service alone, or with its
// subset before it ("v2.api"), and what is not the sidecar's own behind it.
func TargetName(t *Target, own *Registration) string {
	name := UpstreamName(&Upstream{
		DestinationName: t.Service, DestinationNamespace: t.Namespace, DestinationPartition: t.Partition,
		DestinationPeer: t.Peer, Datacenter: t.Datacenter,
	}, own)
	if t.ServiceSubset != "" {
		name = t.ServiceSubset + "." + name
	}
	return name
}

func orDefault(s string) string {
	if s == "" {
		return "default"
	}
	return s
}
