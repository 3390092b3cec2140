package sidecar

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
)

// Envoy's defaults, which hold where Consul says nothing.
const (
	envoyTimeout      = 15 * time.Second
	envoyLocalConnect = 5 * time.Second
)

// protocol reads what Consul calls a protocol; anything unknown is TCP, as with
// Envoy.
func (t *translation) protocol(entry, field, word string) config.Protocol {
	switch p := config.Protocol(word); p {
	case "":
		return config.ProtocolTCP
	case config.ProtocolTCP, config.ProtocolHTTP, config.ProtocolHTTP2, config.ProtocolGRPC:
		return p
	}
	t.find(Differs, entry, field, fmt.Sprintf("is %q, which no sidecar speaks; tcp is spoken", word), "write tcp, http, http2 or grpc")
	return config.ProtocolTCP
}

// service says what the sidecar stands beside.
func (t *translation) service(c *opaque) {
	p, s, from := &t.own.Proxy, &t.Config.Service, "Consul "+t.entry
	must(t, &s.Name, p.DestinationServiceName, "service.name", from+" Proxy.DestinationServiceName")
	word, _ := c.text("protocol")
	put(t, &s.Protocol, t.protocol(t.entry, c.field("protocol"), word), "service.protocol", c.fromOr("protocol", "Consul's default"))
	if t.own.SocketPath != "" {
		t.find(Refused, t.entry, "SocketPath", "is a socket at which callers would look for the sidecar; nothing listens there", "register an Address and a Port")
	}
	if path := p.LocalServiceSocketPath; path != "" && !t.Given("service.port") && !t.Given("service.address") {
		if err := config.CheckSocketPath(path); err != nil {
			t.find(Refused, t.entry, "Proxy.LocalServiceSocketPath", err.Error()+"; there is no inbound listener", "")
			return
		}
		put(t, &s.Address, "unix:"+path, "service.address", from+" Proxy.LocalServiceSocketPath")
		return
	}
	if _, socket := config.SocketPath(s.Address); socket {
		return // the file says so
	}
	put(t, &s.Port, p.LocalServicePort, "service.port", from+" Proxy.LocalServicePort")
	address := p.LocalServiceAddress
	switch address {
	case "", "localhost":
		address = "127.0.0.1"
	}
	if _, err := netip.ParseAddr(address); err != nil {
		t.find(Refused, t.entry, "Proxy.LocalServiceAddress", fmt.Sprintf("is %q, which is no IP address; 127.0.0.1 is called", address), "write the IP address of the application")
		address = "127.0.0.1"
	}
	put(t, &s.Address, address, "service.address", from+" Proxy.LocalServiceAddress")
	if s.Port == 0 {
		t.find(Differs, t.entry, "Proxy.LocalServicePort", "is not given, so the service only calls others: there is no inbound listener", "give the port of the application where it is to be called")
	}
}

// inbound says how others reach the application.
func (t *translation) inbound(c *opaque) {
	in, from := &t.Config.Inbound, "Consul "+t.entry
	// Read in any case, so that they count as known.
	address := t.own.Address
	if a, ok := c.text("bind_address"); ok {
		address = a
	}
	port, portFrom := int64(t.own.Port), from+" Port"
	if n, ok := c.number("bind_port"); ok && n > 0 {
		port, portFrom = n, c.from("bind_port")
	}
	conns, limited := c.number("max_inbound_connections")
	connect, ok := c.millis("local_connect_timeout_ms")
	if !ok || connect == 0 {
		connect = envoyLocalConnect
	}
	timeout, timed := c.millis("local_request_timeout_ms")
	if !timed {
		timeout = envoyTimeout
	}
	idle, idles := c.millis("local_idle_timeout_ms")
	if _, ok := c.text("balance_inbound_connections"); ok {
		t.find(Ignored, t.entry, c.field("balance_inbound_connections"), "is how Envoy shares connections among its threads; here all processors serve all connections", "")
	}
	if _, ok := c.get("xds_fetch_timeout_ms"); ok {
		t.find(Ignored, t.entry, c.field("xds_fetch_timeout_ms"), "is about Envoy's control plane, which is not used", "")
	}
	if kb, ok := c.number("max_request_headers_kb"); ok && kb > 0 {
		put(t, &t.Config.HTTP.MaxHeadBytes, int(min(kb*1024, 1<<20)), "http.max_head_bytes", c.from("max_request_headers_kb"))
		if kb > 1024 {
			t.find(Differs, t.entry, c.field("max_request_headers_kb"), "is beyond 1024 kB, which is the most that a head may have", "")
		}
	}
	if !t.Config.Service.Called() {
		return
	}
	if ip, err := netip.ParseAddr(address); address == "" || err != nil {
		if address != "" {
			// The catalog may have a name that others look up.
			t.find(Differs, t.entry, "Address", fmt.Sprintf("is %q, which is no IP address; all addresses are listened on", address), "give bind_address in Proxy.Config")
		}
		address = "0.0.0.0"
	} else {
		address = ip.String()
	}
	put(t, &in.Listen, net.JoinHostPort(address, strconv.FormatInt(port, 10)), "inbound.listen", portFrom)
	if limited && conns > 0 {
		put(t, &in.MaxConnections, int(conns), "inbound.max_connections", c.from("max_inbound_connections"))
	}
	put(t, &in.ConnectTimeout, connect, "inbound.connect_timeout", c.fromOr("local_connect_timeout_ms", byEnvoy))
	if t.Config.Service.Protocol.HTTP() {
		put(t, &in.Timeout, timeout, "inbound.timeout", c.fromOr("local_request_timeout_ms", byEnvoy))
		if idles {
			put(t, &in.StreamIdleTimeout, idle, "inbound.stream_idle_timeout", c.from("local_idle_timeout_ms"))
		}
	}
}

// accessLogs says where records of exchanges go.
func (t *translation) accessLogs() {
	a, dst := &t.own.Proxy.AccessLogs, &t.Config.Telemetry.AccessLog.Path
	const path = "telemetry.access_log.path"
	from, entry := "Consul "+t.entry+" Proxy.AccessLogs", t.entry
	switch {
	case !a.Enabled:
		put(t, dst, "off", path, from+".Enabled")
		return
	case a.Type == "file" && a.Path != "":
		put(t, dst, a.Path, path, from+".Path")
	case slices.Contains([]string{"stdout", "stderr"}, a.Type):
		put(t, dst, a.Type, path, from+".Type")
	default:
		put(t, dst, "stdout", path, from+".Enabled")
	}
	if a.JSONFormat != "" || a.TextFormat != "" {
		t.find(Differs, entry, "Proxy.AccessLogs", "asks for a format of Envoy; records have this proxy's own fields, as JSON", "see docs/reference for the fields")
	}
}
