package dropin

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// envoyFlags are those of Envoy's that are accepted: whether they take a value,
// and what is said of them; empty where they do here what they do there.
func envoyFlags() map[string]struct {
	value bool
	note  string
} {
	type flag = struct {
		value bool
		note  string
	}
	const restart = "there is no hot restart here: a new process takes over by its own ports"
	return map[string]flag{
		"--config-path": {true, ""}, "--log-level": {true, ""}, "--concurrency": {true, ""},
		"--disable-hot-restart": {false, ""}, "--use-dynamic-base-id": {false, restart}, "--base-id": {true, restart},
		"--restart-epoch": {true, restart}, "--parent-shutdown-time-s": {true, restart},
		"--drain-time-s":        {true, ""},
		"--drain-strategy":      {true, "connections end with their exchange"},
		"--component-log-level": {true, "there is one level for the whole log"},
		"--log-format":          {true, "the form of the log is telemetry.log.format of the configuration"},
		"--log-path":            {true, "the log goes to standard error"},
		"--service-cluster":     {true, "the service is that of the registration"},
		"--service-node":        {true, "the proxy is that of the bootstrap file"},
		"--service-zone":        {true, "the zone is service.zone of the configuration"},
	}
}

// Envoy reads arguments for Envoy, as Nomad gives them to a sidecar task: a
// bootstrap file that "consul connect envoy -bootstrap" has written says which
// proxy it is, and where Consul's gRPC port is.
func Envoy(args []string, sys System) (*Invocation, error) {
	in := &Invocation{LogLevel: "info", Drain: true, ShutdownGrace: nomadGrace}
	flags := envoyFlags()
	path := ""
	for i := 0; i < len(args); i++ {
		name, value, given := strings.Cut(args[i], "=")
		switch name {
		case "-c":
			name = "--config-path"
		case "-l":
			name = "--log-level"
		}
		f, known := flags[name]
		switch {
		case name == "--version":
			in.ShowVersion = true
			return in, nil
		case !known:
			return nil, fmt.Errorf("envoy: %s is not among the arguments that are understood here; leave it out", args[i])
		case f.value && !given:
			if i++; i == len(args) {
				return nil, fmt.Errorf("envoy: %s needs a value", name)
			}
			value = args[i]
		}
		if f.note != "" {
			in.note("%s does nothing: %s", name, f.note)
		}
		var err error
		switch name {
		case "--config-path":
			path = value
		case "--log-level":
			err = in.logLevel(name, value)
		case "--concurrency":
			if in.Processors, err = strconv.Atoi(value); err != nil || in.Processors < 0 {
				err = fmt.Errorf("--concurrency is %q; write a number", value)
			}
		case "--drain-time-s":
			n, wrong := strconv.ParseUint(value, 10, 16)
			if in.ShutdownGrace = time.Duration(n) * time.Second; wrong != nil || n == 0 {
				err = fmt.Errorf("--drain-time-s is %q; write a number of seconds, less than the task's kill_timeout", value)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("envoy: %w", err)
		}
	}
	if path == "" {
		return nil, errors.New("envoy: -c is required: the bootstrap file that consul connect envoy -bootstrap has written")
	}
	data, err := sys.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	service, err := in.bootstrap(data)
	if err != nil {
		return nil, fmt.Errorf("envoy: %s: %w", path, err)
	}
	in.inAllocation(service, sys)
	in.HTTP = sys.Getenv("CONSUL_HTTP_ADDR")
	if in.HTTP == "" {
		return nil, errors.New("envoy: the bootstrap file tells only of Consul's gRPC port, and the mesh is read over HTTP; set CONSUL_HTTP_ADDR in the task's env, such as http://${attr.unique.network.ip-address}:8500")
	}
	if t := sys.Getenv("CONSUL_HTTP_TOKEN"); t != "" {
		in.Token = t
	}
	return in, nil
}

// The parts of Envoy's bootstrap that are read. Consul writes some names in
// snake case and some in camel case.
type (
	bootstrapFile struct {
		Admin struct{ Address socketAddress }
		Node  struct {
			ID       string
			Cluster  string
			Metadata map[string]any
		}
		Static struct {
			Clusters []struct {
				Name      string
				Assign    bootstrapAssignment `json:"loadAssignment"`
				Assign2   bootstrapAssignment `json:"load_assignment"`
				Transport *struct {
					Config struct {
						Common struct {
							Validation struct {
								CA struct {
									Inline   string `json:"inline_string"`
									Filename string `json:"filename"`
								} `json:"trusted_ca"`
							} `json:"validation_context"`
						} `json:"common_tls_context"`
						SNI string `json:"sni"`
					} `json:"typed_config"`
				} `json:"transport_socket"`
			}
			Listeners []struct {
				Name    string
				Address socketAddress
			}
		} `json:"static_resources"`
		Dynamic struct {
			ADS struct {
				Services struct {
					Metadata []struct{ Key, Value string } `json:"initial_metadata"`
				} `json:"grpc_services"`
			} `json:"ads_config"`
		} `json:"dynamic_resources"`
	}
	bootstrapAssignment struct {
		Endpoints []struct {
			LB  []bootstrapEndpoint `json:"lbEndpoints"`
			LB2 []bootstrapEndpoint `json:"lb_endpoints"`
		}
	}
	bootstrapEndpoint struct {
		Endpoint struct{ Address socketAddress }
	}
	socketAddress struct {
		Socket struct {
			Address string
			Port    int `json:"port_value"`
		} `json:"socket_address"`
		Pipe struct{ Path string }
	}
)

func (a *socketAddress) String() string { return address(a.Socket.Address, a.Socket.Port) }

// bootstrap takes from the file which proxy it is for and where it is to be
// found, and returns the service whose sidecar it is.
func (in *Invocation) bootstrap(data []byte) (service string, err error) {
	var b bootstrapFile
	if err := json.Unmarshal(data, &b); err != nil {
		return "", fmt.Errorf("is no bootstrap file: %w", err)
	}
	if b.Node.ID == "" {
		return "", errors.New("has no node.id, which is the ID of the sidecar; it must be one that consul connect envoy -bootstrap has written")
	}
	in.ProxyID = b.Node.ID
	for key, to := range map[string]*string{"namespace": &in.Namespace, "partition": &in.Partition, "node_name": &in.Node} {
		if v, _ := b.Node.Metadata[key].(string); v != "" && v != "default" {
			*to = v
		}
	}
	in.Admin = b.Admin.Address.String()
	for i := range b.Static.Listeners {
		switch l := &b.Static.Listeners[i]; l.Name {
		case "envoy_ready_listener":
			in.Ready = l.Address.String()
		case "envoy_prometheus_metrics_listener":
			in.Metrics, in.Scrape = l.Address.String(), "/metrics"
		default:
			in.note("the listener %s of the bootstrap file is not opened", l.Name)
		}
	}
	for _, m := range b.Dynamic.ADS.Services.Metadata {
		if m.Key == "x-consul-token" {
			in.Token = m.Value
		}
	}
	for i := range b.Static.Clusters {
		c := &b.Static.Clusters[i]
		if c.Name != "local_agent" {
			continue
		}
		at := c.Assign.first()
		if at == nil {
			at = c.Assign2.first()
		}
		switch {
		case at == nil:
			return "", errors.New("has a cluster local_agent without an address")
		case at.Pipe.Path != "":
			in.GRPC = "unix://" + at.Pipe.Path
		case c.Transport != nil:
			in.GRPC = "https://" + at.String()
		default:
			in.GRPC = "http://" + at.String()
		}
		if c.Transport != nil {
			v := &c.Transport.Config.Common.Validation
			in.CAPEM, in.CAFile, in.ServerName = v.CA.Inline, v.CA.Filename, c.Transport.Config.SNI
		}
	}
	if in.GRPC == "" {
		return "", errors.New("has no cluster local_agent, which says where Consul is; it must be one that consul connect envoy -bootstrap has written")
	}
	return b.Node.Cluster, nil
}

func (a *bootstrapAssignment) first() *socketAddress {
	for i := range a.Endpoints {
		for _, list := range [][]bootstrapEndpoint{a.Endpoints[i].LB, a.Endpoints[i].LB2} {
			if len(list) > 0 {
				return &list[0].Endpoint.Address
			}
		}
	}
	return nil
}
