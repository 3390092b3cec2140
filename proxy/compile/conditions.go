package compile

import (
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
)

// conditions says in words which requests a route takes. Values of fields and
// parameters may be secrets and are left out.
func conditions(m *config.RouteMatch) string {
	var list []string
	add := func(name, value string) {
		if value != "" {
			list = append(list, name+" "+value)
		}
	}
	add("path", m.Path)
	add("path_prefix", m.PathPrefix)
	add("path_regex", m.PathRegex)
	add("method", strings.Join(m.Methods, " or "))
	for i := range m.Headers {
		add("header", m.Headers[i].Name)
	}
	for i := range m.Query {
		add("query", m.Query[i].Name)
	}
	if m.GRPC != nil {
		add("grpc service", m.GRPC.Service)
		add("grpc method", m.GRPC.Method)
	}
	if len(list) == 0 {
		return "it takes all"
	}
	return strings.Join(list, ", ")
}
