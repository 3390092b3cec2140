package consul

import "strings"

// Sidecar says which sidecar of Consul's mesh this proxy is.
type Sidecar struct {
	// For is the ID of the service that the proxy stands beside; there must be
	// exactly one sidecar registered for it. Default: none.
	For string `yaml:"for"`
	// ProxyID is the ID under which the sidecar itself is registered. Default: none.
	ProxyID string `yaml:"proxy_id"`
	// Node reads the registration from the catalog, under this node, as where
	// there is no agent beside the proxy. Default: the agent is asked.
	Node string `yaml:"node"`
	// Polls bounds how many queries wait at a time over plain http or a Unix
	// socket, where each holds a connection; the rest take turns, which notices
	// a change a little later. Default 16, the least.
	Polls int `yaml:"polls"`
}

// DefaultSidecar returns the values for what is left out.
func DefaultSidecar() Sidecar { return Sidecar{Polls: minPolls} }

const minPolls = 16

func (s *Sidecar) validate(add func(field, problem string)) {
	switch {
	case s.For == "" && s.ProxyID == "":
		add("sidecar", "names no sidecar; give the service it is for in for, or its own ID in proxy_id")
	case s.For != "" && s.ProxyID != "":
		add("sidecar.for", "and proxy_id are both set; keep one")
	}
	for _, f := range [][2]string{{"for", s.For}, {"proxy_id", s.ProxyID}, {"node", s.Node}} {
		if strings.ContainsAny(f[1], "/?# \t\r\n\"\\") {
			add("sidecar."+f[0], "contains a space, a quote or one of / ? # \\")
		}
	}
	if s.Polls != 0 && s.Polls < minPolls {
		add("sidecar.polls", "is below 16, which the registration, the intentions and the detection of changes need")
	}
}
