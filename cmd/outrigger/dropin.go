package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/dropin"
)

// standIn returns args with the command before them that is meant where the
// program was started in the place of another: by its name, or by an argument
// that only the other one has.
func standIn(program string, args []string) []string {
	switch filepath.Base(program) {
	case "consul-dataplane", "envoy":
		return slices.Insert(slices.Clone(args), 0, filepath.Base(program))
	}
	if len(args) == 0 {
		return args
	}
	switch name, _, _ := strings.Cut(args[0], "="); name {
	case "-addresses", "-check-proxy-health", "-proxy-service-id-path":
		return slices.Insert(slices.Clone(args), 0, "consul-dataplane")
	case "-c", "--config-path":
		return slices.Insert(slices.Clone(args), 0, "envoy")
	}
	return args
}

func newDataplaneCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "consul-dataplane [FLAG...]",
		Short: "Run as consul-dataplane is run by an installation on Kubernetes",
		Long: `Run as the sidecar that the flags and DP_... variables of consul-dataplane ask for,
so that an installation with consul-k8s needs no more than another image. The
program does the same under the name consul-dataplane.

Consul's HTTP API, which those flags do not name, is asked at port 8501 of the
servers, or at 8500 with -tls-disabled; "-- --consul-http-addr URL" says otherwise.`,
		Example:            "  outrigger consul-dataplane -addresses consul-server -proxy-service-id web-sidecar-proxy -service-node-name node-1-virtual",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if slices.Contains(args, "--help") || slices.Contains(args, "-h") {
				return cmd.Help()
			}
			cmd.SilenceUsage = true
			return takePlace(cmd, args, dropin.Dataplane)
		},
	}
}

func newEnvoyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "envoy -c FILE [FLAG...]",
		Short: "Run as Envoy is run by Nomad",
		Long: `Run as the sidecar that a bootstrap file of "consul connect envoy -bootstrap" is
for, with the arguments that Nomad gives to Envoy, so that
meta.connect.sidecar_image may name an image of this program. It does the same
under the name envoy, or with -c as its first argument.

The file tells of Consul's gRPC port alone; CONSUL_HTTP_ADDR says where its HTTP
API is.`,
		Example:            "  CONSUL_HTTP_ADDR=http://10.0.0.5:8500 outrigger envoy -c /secrets/envoy_bootstrap.json -l info --concurrency 1",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if slices.Contains(args, "--help") || slices.Contains(args, "-h") {
				return cmd.Help()
			}
			cmd.SilenceUsage = true
			return takePlace(cmd, args, dropin.Envoy)
		},
	}
}

// takePlace does what the other program would have done.
func takePlace(cmd *cobra.Command, args []string, parse func([]string, dropin.System) (*dropin.Invocation, error)) error {
	ctx := cmd.Context()
	in, err := parse(args, dropin.ReadSystem(func(name string, args ...string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, addressesTime)
		defer cancel()
		return exec.CommandContext(ctx, name, args...).CombinedOutput()
	}))
	switch {
	case err != nil:
		return fail(err)
	case in.ShowVersion:
		return newVersionCommand().ExecuteContext(ctx)
	case in.CheckHealth:
		return checkHealth(ctx, in.Admin)
	}
	flags := &runFlags{proxyID: in.ProxyID, node: in.Node, processors: in.Processors}
	if in.CAPEM != "" {
		if in.CAFile, err = writeCA(in.CAPEM); err != nil {
			return fail(err)
		}
		defer os.Remove(in.CAFile)
	}
	if flags.asked, err = asked(in); err != nil {
		return fail(err)
	}
	if in.Processors > 0 {
		runtime.GOMAXPROCS(min(in.Processors, runtime.GOMAXPROCS(0)))
	}
	for _, n := range in.Notes {
		fmt.Fprintln(cmd.ErrOrStderr(), "outrigger: note:", n)
	}
	return serve(ctx, flags)
}

// addressesTime bounds a program that says where Consul's servers are.
const addressesTime = 30 * time.Second

// healthTime bounds the question whether a proxy is ready.
const healthTime = 5 * time.Second

// checkHealth asks a running proxy whether it is ready.
func checkHealth(ctx context.Context, admin string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/ready", nil)
	if err != nil {
		return fail(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fail(fmt.Errorf("the proxy is not ready: %w", err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return fail(fmt.Errorf("the proxy is not ready: %s", strings.TrimSpace(string(text))))
	}
	return nil
}

// writeCA keeps authorities in a file of their own, where files are asked for.
func writeCA(pem string) (string, error) {
	f, err := os.CreateTemp("", "outrigger-ca-*.pem")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(pem)
	return f.Name(), errors.Join(err, f.Close())
}

// asked is what an invocation says, as a part of our own configuration.
func asked(in *dropin.Invocation) ([]config.Layer, error) {
	if ns, ap := in.Namespace, in.Partition; ns != "" && ns != "default" || ap != "" && ap != "default" {
		return nil, fmt.Errorf("the proxy is registered in namespace %q and partition %q, which are of Consul Enterprise and not understood here", ns, ap)
	}
	var list []config.Layer
	var problem error
	set := func(path string, value any) {
		data, err := json.Marshal(value)
		problem = errors.Join(problem, err)
		list = append(list, config.Layer{From: "the command line", Path: strings.Fields(path), Data: data})
	}
	text := func(path, value string) {
		if value != "" {
			set(path, value)
		}
	}
	text("discovery consul address", in.HTTP)
	text("discovery consul token", in.Token)
	text("identity consul grpc_address", in.GRPC)
	if strings.HasPrefix(in.HTTP, "https://") {
		text("discovery consul tls ca_file", in.CAFile)
		text("discovery consul tls cert_file", in.CertFile)
		text("discovery consul tls key_file", in.KeyFile)
		text("discovery consul tls server_name", in.ServerName)
	}
	if strings.HasPrefix(in.GRPC, "https://") || strings.HasPrefix(in.GRPC, "unix://") {
		text("identity consul grpc_ca_file", in.CAFile)
		text("identity consul grpc_server_name", in.ServerName)
	}
	if l := in.Login; l != nil {
		if l.BearerFile == "" {
			return nil, errors.New("-login-bearer-token: the bearer token is read from a file, again at each login; give -login-bearer-token-path")
		}
		text("discovery consul login auth_method", l.Method)
		text("discovery consul login bearer_token_file", l.BearerFile)
		text("discovery consul login datacenter", l.Datacenter)
		text("discovery consul login namespace", l.Namespace)
		text("discovery consul login partition", l.Partition)
		if len(l.Meta) > 0 {
			set("discovery consul login meta", l.Meta)
		}
	}
	text("admin listen", in.Admin)
	text("admin probe_listen", in.Ready)
	text("admin metrics_listen", in.Metrics)
	if in.Scrape != "" && in.Metrics != "" {
		text("admin metrics_path", in.Scrape)
	}
	if in.Graceful != "" {
		text("admin lifecycle listen", in.Graceful)
		text("admin lifecycle shutdown_path", in.ShutdownPath)
		text("admin lifecycle startup_path", in.StartupPath)
		if in.StartupGrace > 0 {
			text("admin lifecycle startup_timeout", in.StartupGrace.String())
		}
	}
	text("dns listen", in.DNS)
	text("telemetry log level", in.LogLevel)
	if in.LogJSON {
		set("telemetry log format", "json")
	}
	if in.ShutdownGrace > 0 {
		delay := in.ShutdownGrace
		if in.Drain {
			delay = min(in.ShutdownGrace/3, 5*time.Second)
		}
		text("drain delay", delay.String())
		text("drain timeout", (in.ShutdownGrace - delay).String())
	}
	return list, problem
}
