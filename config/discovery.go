package config

import (
	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/discovery/dns"
	"github.com/outrigger-mesh/outrigger/discovery/file"
)

// Discovery is where endpoints are found: at most one of Consul, File and DNS.
type Discovery struct {
	// The catalog of a Consul agent or server, watched by blocking queries.
	Consul *consul.Config `yaml:"consul"`
	// A catalog file, read again when it changes.
	File *file.Config `yaml:"file"`
	// Names in DNS, looked up again and again.
	DNS *dns.Config `yaml:"dns"`
	// The file in which the last good answers are kept for a start while discovery is away. Empty: none is kept.
	Snapshot string `yaml:"snapshot"`
}

// Kind is the name of the source in use: "consul", "file", "dns" or "" for none.
func (d *Discovery) Kind() string {
	switch {
	case d.Consul != nil:
		return "consul"
	case d.File != nil:
		return "file"
	case d.DNS != nil:
		return "dns"
	}
	return ""
}
