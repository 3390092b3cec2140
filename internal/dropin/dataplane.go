package dropin

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// dataplane is the command line of consul-dataplane while it is read. Every flag
// has an environment variable of its own, over which the flag goes.
type dataplane struct {
	set *flag.FlagSet
	sys System
	err []error
}

func (d *dataplane) text(name, env, value string) *string {
	if v := d.sys.Getenv(env); v != "" {
		value = v
	}
	return d.set.String(name, value, "")
}

func (d *dataplane) number(name, env string, value int) *int {
	if v := d.sys.Getenv(env); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			d.err = append(d.err, fmt.Errorf("%s is %q; write a number", env, v))
		}
		value = n
	}
	return d.set.Int(name, value, "")
}

func (d *dataplane) yes(name, env string, value bool) *bool {
	if v := d.sys.Getenv(env); v != "" {
		b, err := strconv.ParseBool(v)
		if err != nil {
			d.err = append(d.err, fmt.Errorf("%s is %q; write true or false", env, v))
		}
		value = b
	}
	return d.set.Bool(name, value, "")
}

// pairs is a flag that may be given several times, as "key=value".
type pairs map[string]string

func (p pairs) String() string { return "" }

func (p pairs) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return fmt.Errorf("%q is no pair; write key=value", text)
	}
	p[key] = value
	return nil
}

// maxMeta is how many numbered variables for pairs are looked at.
const maxMeta = 9

func (d *dataplane) meta(name, env string) pairs {
	p := pairs{}
	for i := 0; i <= maxMeta; i++ {
		key := env
		if i > 0 {
			key += strconv.Itoa(i)
		}
		for part := range strings.SplitSeq(d.sys.Getenv(key), ",") {
			if part == "" {
				continue
			}
			if err := p.Set(part); err != nil {
				d.err = append(d.err, fmt.Errorf("%s: %w", key, err))
			}
		}
	}
	d.set.Var(p, name, "")
	return p
}

// Dataplane reads the arguments of consul-dataplane, without the program's
// name. The flags, their variables and defaults are those of its version 1.9.
// After "--" come the arguments for Envoy, among which ours are understood:
// --consul-http-addr URL, where Consul's HTTP API is not at the usual port of
// the given addresses.
func Dataplane(args []string, sys System) (*Invocation, error) {
	d := &dataplane{set: flag.NewFlagSet("consul-dataplane", flag.ContinueOnError), sys: sys}
	d.set.SetOutput(io.Discard)
	in := &Invocation{}
	addresses := d.text("addresses", "DP_CONSUL_ADDRESSES", "")
	grpcPort := d.number("grpc-port", "DP_CONSUL_GRPC_PORT", 8502)
	d.yes("server-watch-disabled", "DP_SERVER_WATCH_DISABLED", false) // servers are found by their name at each dial

	level := d.text("log-level", "DP_LOG_LEVEL", "info")
	json := d.yes("log-json", "DP_LOG_JSON", false)

	node := d.text("service-node-name", "DP_SERVICE_NODE_NAME", "")
	nodeID := d.text("service-node-id", "DP_SERVICE_NODE_ID", "")
	id := d.text("proxy-service-id", "DP_PROXY_SERVICE_ID", "")
	idPath := d.text("proxy-service-id-path", "DP_PROXY_SERVICE_ID_PATH", "")
	ns := d.text("service-namespace", "DP_SERVICE_NAMESPACE", "")
	ap := d.text("service-partition", "DP_SERVICE_PARTITION", "")
	mode := d.text("mode", "DP_MODE", "sidecar")

	credential := d.text("credential-type", "DP_CREDENTIAL_TYPE", "")
	token := d.text("static-token", "DP_CREDENTIAL_STATIC_TOKEN", "")
	login := &Login{}
	method := d.text("login-auth-method", "DP_CREDENTIAL_LOGIN_AUTH_METHOD", "")
	loginNS := d.text("login-namespace", "DP_CREDENTIAL_LOGIN_NAMESPACE", "")
	loginAP := d.text("login-partition", "DP_CREDENTIAL_LOGIN_PARTITION", "")
	loginDC := d.text("login-datacenter", "DP_CREDENTIAL_LOGIN_DATACENTER", "")
	bearer := d.text("login-bearer-token", "DP_CREDENTIAL_LOGIN_BEARER_TOKEN", "")
	bearerPath := d.text("login-bearer-token-path", "DP_CREDENTIAL_LOGIN_BEARER_TOKEN_PATH", "")
	meta := d.meta("login-meta", "DP_CREDENTIAL_LOGIN_META")

	d.yes("telemetry-use-central-config", "DP_TELEMETRY_USE_CENTRAL_CONFIG", true)
	d.text("telemetry-prom-retention-time", "DP_TELEMETRY_PROM_RETENTION_TIME", "60s") // counters here have no end
	promCA := d.text("telemetry-prom-ca-certs-path", "DP_TELEMETRY_PROM_CA_CERTS_PATH", "")
	promKey := d.text("telemetry-prom-key-file", "DP_TELEMETRY_PROM_KEY_FILE", "")
	promCert := d.text("telemetry-prom-cert-file", "DP_TELEMETRY_PROM_CERT_FILE", "")
	promURL := d.text("telemetry-prom-service-metrics-url", "DP_TELEMETRY_PROM_SERVICE_METRICS_URL", "")
	scrape := d.text("telemetry-prom-scrape-path", "DP_TELEMETRY_PROM_SCRAPE_PATH", "/metrics")
	d.number("telemetry-prom-merge-port", "DP_TELEMETRY_PROM_MERGE_PORT", 20100)

	adminHost := d.text("envoy-admin-bind-address", "DP_ENVOY_ADMIN_BIND_ADDRESS", "127.0.0.1")
	adminPort := d.number("envoy-admin-bind-port", "DP_ENVOY_ADMIN_BIND_PORT", 19000)
	readyHost := d.text("envoy-ready-bind-address", "DP_ENVOY_READY_BIND_ADDRESS", "")
	readyPort := d.number("envoy-ready-bind-port", "DP_ENVOY_READY_BIND_PORT", 0)
	processors := d.number("envoy-concurrency", "DP_ENVOY_CONCURRENCY", 2)
	d.number("envoy-drain-time-seconds", "DP_ENVOY_DRAIN_TIME", 30)
	d.text("envoy-drain-strategy", "DP_ENVOY_DRAIN_STRATEGY", "immediate")
	d.text("xds-bind-addr", "DP_XDS_BIND_ADDR", "127.0.0.1")
	d.number("xds-bind-port", "DP_XDS_BIND_PORT", 0)

	plain := d.yes("tls-disabled", "DP_TLS_DISABLED", false)
	ca := d.text("ca-certs", "DP_CA_CERTS", "")
	cert := d.text("tls-cert", "DP_TLS_CERT", "")
	key := d.text("tls-key", "DP_TLS_KEY", "")
	name := d.text("tls-server-name", "DP_TLS_SERVER_NAME", "")
	insecure := d.yes("tls-insecure-skip-verify", "DP_TLS_INSECURE_SKIP_VERIFY", false)

	dnsHost := d.text("consul-dns-bind-addr", "DP_CONSUL_DNS_BIND_ADDR", "127.0.0.1")
	dnsPort := d.number("consul-dns-bind-port", "DP_CONSUL_DNS_BIND_PORT", -1)

	drain := d.yes("shutdown-drain-listeners", "DP_SHUTDOWN_DRAIN_LISTENERS", false)
	grace := d.number("shutdown-grace-period-seconds", "DP_SHUTDOWN_GRACE_PERIOD_SECONDS", 0)
	startGrace := d.number("startup-grace-period-seconds", "DP_STARTUP_GRACE_PERIOD_SECONDS", 0)
	shutdownPath := d.text("graceful-shutdown-path", "DP_GRACEFUL_SHUTDOWN_PATH", "/graceful_shutdown")
	startupPath := d.text("graceful-startup-path", "DP_GRACEFUL_STARTUP_PATH", "/graceful_startup")
	gracefulHost := d.text("graceful-addr", "DP_GRACEFUL_ADDR", "127.0.0.1")
	gracefulPort := d.number("graceful-port", "DP_GRACEFUL_PORT", 20300)
	d.yes("dump-envoy-config-on-exit", "DP_DUMP_ENVOY_CONFIG_ON_EXIT", false)
	file := d.set.String("config-file", "", "")
	health := d.set.Bool("check-proxy-health", false, "")
	version := d.set.Bool("version", false, "")

	if err := d.set.Parse(args); err != nil {
		return nil, fmt.Errorf("consul-dataplane: %w", err)
	}
	in.CheckHealth, in.ShowVersion = *health, *version
	in.Admin = address(*adminHost, *adminPort)
	if in.CheckHealth || in.ShowVersion {
		return in, nil
	}
	refuse := func(bad bool, text string) {
		if bad {
			d.err = append(d.err, errors.New(text))
		}
	}
	refuse(*file != "", "-config-file is not read here; give its settings as flags or DP_... variables")
	refuse(*mode != "sidecar", fmt.Sprintf("-mode is %q; only sidecar is done here: DNS alone is what consul-dataplane itself is for", *mode))
	refuse(*insecure, "-tls-insecure-skip-verify is refused: the ACL token would go to anybody; give -ca-certs and -tls-server-name")
	refuse(*nodeID != "" && *node == "", "-service-node-id alone is not enough to find the registration over HTTP; give -service-node-name")
	refuse(promCert != nil && (*promCert != "" || *promKey != "" || *promCA != ""), "-telemetry-prom-cert-file, -key-file and -ca-certs-path: metrics are served without TLS; scrape them on loopback, or through the mesh")
	refuse(*promURL != "", "-telemetry-prom-service-metrics-url: the application's metrics are not merged; have Prometheus scrape the application itself")
	in.ProxyID = strings.TrimSpace(*id)
	if in.ProxyID == "" && *idPath != "" {
		b, err := sys.ReadFile(*idPath)
		if err != nil {
			d.err = append(d.err, fmt.Errorf("-proxy-service-id-path: %w", err))
		}
		in.ProxyID = strings.TrimSpace(string(b))
	}
	refuse(in.ProxyID == "", "-proxy-service-id or -proxy-service-id-path is required")
	in.Node, in.Namespace, in.Partition = *node, *ns, *ap

	switch *credential {
	case "":
	case "static":
		in.Token = *token
		refuse(*token == "", "-credential-type static needs -static-token")
	case "login":
		*login = Login{*method, *loginNS, *loginAP, *loginDC, *bearer, *bearerPath, meta}
		in.Login = login
		refuse(*method == "", "-credential-type login needs -login-auth-method")
		refuse(*bearer == "" && *bearerPath == "", "-credential-type login needs -login-bearer-token-path")
	default:
		refuse(true, fmt.Sprintf("-credential-type is %q; use static or login", *credential))
	}
	if err := in.logLevel("-log-level", *level); err != nil {
		d.err = append(d.err, err)
	}
	in.LogJSON, in.Processors = *json, *processors
	in.CAFile, in.CertFile, in.KeyFile, in.ServerName = *ca, *cert, *key, *name
	if *readyPort > 0 && *readyHost == "" {
		*readyHost = "0.0.0.0" // the pod's own, which kubelet asks
	}
	in.Ready, in.Graceful, in.DNS = address(*readyHost, *readyPort), address(*gracefulHost, *gracefulPort), address(*dnsHost, *dnsPort)
	in.Scrape, in.ShutdownPath, in.StartupPath = *scrape, *shutdownPath, *startupPath
	in.Drain, in.ShutdownGrace, in.StartupGrace = *drain, time.Duration(*grace)*time.Second, time.Duration(*startGrace)*time.Second

	d.servers(in, *addresses, *grpcPort, *plain)
	if err := in.own(d.set.Args()); err != nil {
		d.err = append(d.err, err)
	}
	if len(d.err) > 0 {
		return nil, fmt.Errorf("consul-dataplane: %w", errors.Join(d.err...))
	}
	return in, nil
}

// servers finds Consul's servers. Their HTTP API is not told of: where TLS is
// spoken it is by convention on port 8501, else on 8500.
func (d *dataplane) servers(in *Invocation, addresses string, grpcPort int, plain bool) {
	if addresses == "" {
		d.err = append(d.err, errors.New("-addresses is required: a name or address of Consul's servers"))
		return
	}
	host := addresses
	if command, ok := strings.CutPrefix(addresses, "exec="); ok {
		words := strings.Fields(command)
		if len(words) == 0 {
			d.err = append(d.err, errors.New("-addresses is exec= without a program"))
			return
		}
		out, err := d.sys.Output(words[0], words[1:]...)
		list := strings.Fields(string(out))
		switch {
		case err != nil:
			d.err = append(d.err, fmt.Errorf("-addresses: %s: %w %s", command, err, firstLine(out)))
			return
		case len(list) == 0 || net.ParseIP(list[0]) == nil:
			d.err = append(d.err, fmt.Errorf("-addresses: %s wrote %q in place of IP addresses", command, firstLine(out)))
			return
		case len(list) > 1:
			in.note("-addresses: of the %d servers that %s names the first is used until a restart", len(list), words[0])
		}
		host = list[0]
	}
	scheme, port := "https", 8501
	if plain {
		scheme, port = "http", 8500
	}
	in.HTTP = scheme + "://" + address(host, port)
	in.GRPC = scheme + "://" + address(host, grpcPort)
}

// own reads the arguments that would go to Envoy.
func (in *Invocation) own(args []string) error {
	for i := 0; i < len(args); i++ {
		name, value, given := strings.Cut(args[i], "=")
		switch name {
		case "--consul-http-addr":
			if !given {
				if i++; i == len(args) {
					return errors.New("--consul-http-addr needs an address, such as https://consul.example:8501")
				}
				value = args[i]
			}
			in.HTTP = value
		default:
			in.note("%s is for Envoy and does nothing here", args[i])
		}
	}
	return nil
}
