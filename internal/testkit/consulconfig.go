package testkit

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// consulPorts are the ports of an agent.
type consulPorts struct{ http, server, serfLAN, serfWAN, grpc int }

// config is the agent's configuration.
func (c *ConsulAgent) config() map[string]any {
	config := map[string]any{
		"node_name": c.Node, "datacenter": c.opts.Datacenter,
		"data_dir":  filepath.Join(c.dir, "data"),
		"bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "log_level": "warn",
		"performance":                map[string]any{"raft_multiplier": 1},
		"leave_on_terminate":         false,
		"disable_update_check":       true,
		"check_update_interval":      "0s",
		"enable_local_script_checks": false,
		"ui_config":                  map[string]any{"enabled": false},
		"peering":                    map[string]any{"enabled": false},
		"connect":                    map[string]any{"enabled": c.opts.Mesh},
	}
	ports := map[string]any{
		"http": c.ports.http, "server": c.ports.server, "serf_lan": c.ports.serfLAN,
		"https": -1, "grpc": -1, "grpc_tls": -1, "dns": -1, "serf_wan": -1,
	}
	if c.opts.Mesh {
		ports["grpc"] = c.ports.grpc
		// The agent's own leaves follow a new root within this, not half a minute.
		config["connect"] = map[string]any{"enabled": true, "test_ca_leaf_root_change_spread": "1s"}
	}
	if server := c.opts.Server; server != nil {
		config["retry_join"] = []string{fmt.Sprintf("127.0.0.1:%d", server.ports.serfLAN)}
		config["retry_interval"] = "1s"
	} else {
		config["server"], config["bootstrap_expect"] = true, 1
		if c.opts.Mesh {
			ports["serf_wan"] = c.ports.serfWAN
		}
	}
	tokens := map[string]string{"agent": managementToken}
	acl := map[string]any{"enabled": true, "default_policy": "deny", "token_ttl": "0s", "tokens": tokens}
	if primary := c.opts.Primary; primary != nil {
		config["primary_datacenter"] = primary.opts.Datacenter
		config["retry_join_wan"] = []string{fmt.Sprintf("127.0.0.1:%d", primary.ports.serfWAN)}
		config["retry_interval_wan"] = "1s"
		tokens["replication"], acl["enable_token_replication"] = managementToken, true
	} else if c.opts.Server == nil {
		tokens["initial_management"] = managementToken
	}
	if c.opts.ACL {
		config["acl"] = acl
	}
	config["ports"] = ports
	for key, value := range c.opts.Config {
		if section, ok := value.(map[string]any); ok {
			if have, ok := config[key].(map[string]any); ok {
				maps.Copy(have, section)
				continue
			}
		}
		config[key] = value
	}
	return config
}

// ready says whether there is a leader, the agent's node is in the catalog, the
// management token works, certificates can be had and a federation stands. It
// asks without stale reads, so only a leader can say yes.
func (c *ConsulAgent) ready(ctx context.Context) bool {
	says := func(path, want string) bool {
		status, body, err := c.call(ctx, http.MethodGet, path, nil)
		return err == nil && status == http.StatusOK && strings.Contains(string(body), want)
	}
	switch {
	case !says("/v1/health/node/"+c.Node+"?consistent", "serfHealth"):
	case c.Token != "" && !says("/v1/acl/token/self", ""):
	case c.opts.Mesh && !c.hasRoots(ctx):
	case c.opts.Primary != nil && !says("/v1/catalog/datacenters", `"`+c.opts.Primary.opts.Datacenter+`"`):
	default:
		return true
	}
	return false
}

func (c *ConsulAgent) hasRoots(ctx context.Context) bool {
	status, body, err := c.call(ctx, http.MethodGet, "/v1/connect/ca/roots", nil)
	var roots struct{ ActiveRootID string }
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &roots) != nil || roots.ActiveRootID == "" {
		return false
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.GRPC)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// agentPorts are those of all packages' agents, each of which keeps its own
// while it is down.
var agentPorts = Ports{Low: 4000, High: 10000}

func freePorts(t testing.TB) consulPorts {
	t.Helper()
	free := func() int { return agentPorts.Free(t) }
	return consulPorts{http: free(), server: free(), serfLAN: free(), serfWAN: free(), grpc: free()}
}
