package archtest

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
)

// consulKinds are the kinds of config entries that Consul 1.22 knows, with their
// fields as its client library has them. docs/consul.md has a section for each.
var consulKinds = map[string]any{
	api.ProxyDefaults:     api.ProxyConfigEntry{},
	api.ServiceDefaults:   api.ServiceConfigEntry{},
	api.ServiceRouter:     api.ServiceRouterConfigEntry{},
	api.ServiceSplitter:   api.ServiceSplitterConfigEntry{},
	api.ServiceResolver:   api.ServiceResolverConfigEntry{},
	api.ServiceIntentions: api.ServiceIntentionsConfigEntry{},
	api.JWTProvider:       api.JWTProviderConfigEntry{},
	api.MeshConfig:        api.MeshConfigEntry{},

	api.ExportedServices:      api.ExportedServicesConfigEntry{},
	api.SamenessGroup:         api.SamenessGroupConfigEntry{},
	api.RateLimitIPConfig:     api.RateLimitIPConfigEntry{},
	api.IngressGateway:        api.IngressGatewayConfigEntry{},
	api.TerminatingGateway:    api.TerminatingGatewayConfigEntry{},
	api.APIGateway:            api.APIGatewayConfigEntry{},
	"bound-api-gateway":       nil,
	api.HTTPRoute:             api.HTTPRouteConfigEntry{},
	api.TCPRoute:              api.TCPRouteConfigEntry{},
	api.InlineCertificate:     api.InlineCertificateConfigEntry{},
	api.FileSystemCertificate: api.FileSystemCertificateConfigEntry{},
}

// consulShapes are Consul's answers as the sidecar decodes them, by section. The
// client library has not all of their fields.
var consulShapes = map[string]any{
	"The registration":      mesh.Registration{},
	"The compiled chain":    mesh.Chain{},
	"The matched intention": mesh.Intention{},
	api.JWTProvider:         mesh.JWTProvider{},
	api.MeshConfig:          mesh.MeshEntry{},
}

// consulKeys are the opaque keys that Consul documents for its proxies; it looks
// at none of them when an entry is written.
var consulKeys = map[string]string{
	"Keys of a proxy's Config": `protocol bind_address bind_port local_connect_timeout_ms local_request_timeout_ms local_idle_timeout_ms
		max_inbound_connections balance_inbound_connections max_request_headers_kb xds_fetch_timeout_ms
		envoy_public_listener_json envoy_listener_tracing_json envoy_local_cluster_json
		envoy_bootstrap_json_tpl envoy_extra_static_clusters_json envoy_extra_static_listeners_json envoy_extra_stats_sinks_json
		envoy_stats_config_json envoy_tracing_json envoy_prometheus_bind_addr envoy_stats_bind_addr envoy_statsd_url
		envoy_dogstatsd_url envoy_stats_tags envoy_stats_flush_interval envoy_telemetry_collector_bind_socket_dir`,
	"Keys of an upstream's Config": `protocol connect_timeout_ms limits.max_connections limits.max_pending_requests limits.max_concurrent_requests
		passive_health_check.interval passive_health_check.max_failures passive_health_check.enforcing_consecutive_5xx
		passive_health_check.max_ejection_percent passive_health_check.base_ejection_time
		mesh_gateway balance_outbound_connections envoy_listener_json envoy_cluster_json`,
}

// consulRow is a row of docs/consul.md.
type consulRow struct {
	fields []string // with braces expanded; "*" at the end stands for all below
	status string
	tests  []string
	text   string
}

// Every field that Consul has is in the table of docs/consul.md, no other is,
// and each row names a test that there is.
func TestConsulTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "consul.md"))
	if err != nil {
		t.Fatal(err)
	}
	table, problems := consulTable(string(text))
	want := map[string][]string{}
	for kind, entry := range consulKinds {
		want[kind] = []string{}
		if entry != nil {
			want[kind] = leaves(reflect.TypeOf(entry), "", 0)
		}
	}
	for section, shape := range consulShapes {
		want[section] = append(want[section], leaves(reflect.TypeOf(shape), "", 0)...)
	}
	for section, keys := range consulKeys {
		want[section] = strings.Fields(keys)
	}
	known := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			for _, d := range s.file.Scope.Objects {
				if strings.HasPrefix(d.Name, "Test") {
					known[d.Name] = true
				}
			}
		}
	}
	for _, p := range append(problems, consulGaps(table, want, known)...) {
		t.Errorf("docs/consul.md: %s", p)
	}
}

// consulGaps compares the table with the fields that it must have and with the
// tests that there are.
func consulGaps(table map[string][]consulRow, want map[string][]string, known map[string]bool) (problems []string) {
	say := func(parts ...string) { problems = append(problems, strings.Join(parts, "")) }
	for _, section := range slices.Sorted(maps.Keys(want)) {
		if table[section] == nil {
			say("no section ### ", section)
			continue
		}
		used := map[string]bool{}
		for _, field := range want[section] {
			if base := field[strings.LastIndex(field, ".")+1:]; base == "CreateIndex" || base == "ModifyIndex" || base == "Hash" {
				continue // Consul's own counting
			}
			found := false
			for _, row := range table[section] {
				for _, f := range row.fields {
					if f == field || strings.HasSuffix(f, "*") && strings.HasPrefix(field, strings.TrimRight(f, "*")) {
						found, used[f] = true, true
					}
				}
			}
			if !found {
				say(section, ": no row for ", field)
			}
		}
		for _, row := range table[section] {
			for _, f := range row.fields {
				if !used[f] && f != "*" {
					say(section, ": Consul has no field ", f)
				}
			}
			if len(row.tests) == 0 {
				say(section, ": no test for ", strings.Join(row.fields, ", "))
			}
			if (row.status == "differs" || row.status == "refused") && row.text == "" {
				say(section, ": no reason why ", strings.Join(row.fields, ", "), " is ", row.status)
			}
			for _, test := range row.tests {
				if !known[test] {
					say(section, ": there is no test ", test)
				}
			}
		}
	}
	for section := range table {
		if _, ok := want[section]; !ok {
			say("the section ", section, " is of nothing that Consul has")
		}
	}
	return problems
}

// consulTable reads the sections below "## Compatibility".
func consulTable(text string) (table map[string][]consulRow, problems []string) {
	code := regexp.MustCompile("`([^`]+)`")
	status := regexp.MustCompile(`^(supported|differs|refused|Consul's own)(?:[.:] *(.*))?$`)
	table = map[string][]consulRow{}
	_, text, _ = strings.Cut(text, "\n## Compatibility\n")
	text, _, _ = strings.Cut(text, "\n## ")
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if s, ok := strings.CutPrefix(line, "### "); ok {
			section = s
			table[section] = []consulRow{}
		}
		if section == "" || !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		if len(cells) != 3 {
			problems = append(problems, "not three cells: "+line)
			continue
		}
		m := status.FindStringSubmatch(strings.TrimSpace(cells[1]))
		if m == nil {
			problems = append(problems, "no status: "+line)
			continue
		}
		row := consulRow{status: m[1], text: m[2]}
		for _, c := range code.FindAllStringSubmatch(cells[0], -1) {
			row.fields = append(row.fields, braces(c[1])...)
		}
		for _, c := range code.FindAllStringSubmatch(cells[2], -1) {
			row.tests = append(row.tests, c[1])
		}
		table[section] = append(table[section], row)
	}
	return table, problems
}

// braces writes "A.{B,C}.D" as A.B.D and A.C.D.
func braces(s string) []string {
	before, rest, ok := strings.Cut(s, "{")
	if !ok {
		return []string{s}
	}
	inner, after, _ := strings.Cut(rest, "}")
	var list []string
	for part := range strings.SplitSeq(inner, ",") {
		list = append(list, braces(before+part+after)...)
	}
	return list
}

// leaves returns the paths of the fields below a type, such as
// "Routes[].Match.HTTP.PathExact"; maps are written as lists.
func leaves(t reflect.Type, path string, depth int) (list []string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice || t.Kind() == reflect.Map:
		elem := t.Elem()
		for elem.Kind() == reflect.Pointer {
			elem = elem.Elem()
		}
		if elem.Kind() == reflect.Struct {
			return leaves(elem, path+"[]", depth+1)
		}
	case t.Kind() == reflect.Struct && depth < 12:
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case !f.IsExported() || name == "-" || f.Name == "Unknown": // what is our own remark on an answer
				continue
			case f.Anonymous && name == "":
				list = append(list, leaves(f.Type, path, depth+1)...)
				continue
			case name == "":
				name = f.Name
			}
			list = append(list, leaves(f.Type, strings.TrimPrefix(path+"."+name, "."), depth+1)...)
		}
		return list
	}
	return []string{path}
}

// The comparison must be able to fail.
func TestConsulTableFails(t *testing.T) {
	table, problems := consulTable("x\n## Compatibility\n\n### kind\n\n| Field |\n" +
		"| `A.{B,C}`, `D.*` | supported | `TestX` |\n| `E` | differs | `TestY` |\n| `F` | supported | `TestX` |\n| `G` | refused: so. | |\n| `H` | open | |\n### other\n## Next\n| `I` | supported | `TestX` |\n")
	got := append(problems, consulGaps(table, map[string][]string{
		"kind": {"A.B", "A.C", "D.X.Y", "E", "G", "M", "Z.ModifyIndex"}, "third": {},
	}, map[string]bool{"TestX": true})...)
	want := []string{
		"no status: | `H` | open | |",
		"kind: no row for M", "kind: no reason why E is differs", "kind: there is no test TestY", "kind: Consul has no field F", "kind: no test for G",
		"no section ### third", "the section other is of nothing that Consul has",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
