package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/dropin"
)

func deployed(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The command lines of the deployment files are understood.
func TestDeployedCommandLines(t *testing.T) {
	unit := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/outrigger (.*)$`)
	args := regexp.MustCompile(`(?m)^ *args *= (\[.*\])$`)
	found := 0
	for _, pattern := range []string{"systemd/*.service", "nomad/*.hcl"} {
		files, err := filepath.Glob(filepath.Join("..", "..", "deploy", pattern))
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var lines [][]string
			for _, m := range unit.FindAllSubmatch(text, -1) {
				lines = append(lines, strings.Fields(string(m[1])))
			}
			for _, m := range args.FindAllSubmatch(text, -1) {
				var list []string
				if err := json.Unmarshal(m[1], &list); err != nil {
					t.Errorf("%s: %s: %v", file, m[1], err)
					continue
				}
				lines = append(lines, list)
			}
			for _, line := range lines {
				found++
				cmd := newRunCommand()
				if len(line) == 0 || line[0] != "run" {
					t.Errorf("%s: %q is not run", file, line)
				} else if err := cmd.ParseFlags(line[1:]); err != nil {
					t.Errorf("%s: %q: %v", file, line, err)
				} else if err := cmd.ValidateFlagGroups(); err != nil || cmd.Flags().NArg() > 0 {
					t.Errorf("%s: %q: %v, left over %q", file, line, err, cmd.Flags().Args())
				}
			}
		}
	}
	if found < 4 {
		t.Errorf("only %d command lines were found", found)
	}
}

// What a pod of consul-k8s says of its sidecar is understood.
func TestDeployedAnnotations(t *testing.T) {
	annotation := func(name string) string {
		t.Helper()
		m := regexp.MustCompile(`(?m)^ *consul\.hashicorp\.com/` + name + `: (?:"(.*)"|'(.*)')$`).FindStringSubmatch(deployed(t, "kubernetes/web-consul.yaml"))
		if m == nil {
			t.Fatalf("there is no annotation %s", name)
		}
		return m[1] + m[2]
	}
	line := append(strings.Fields("-addresses consul-server.consul.svc -proxy-service-id web --"), strings.Fields(annotation("envoy-extra-args"))...)
	in, err := dropin.Dataplane(line, dropin.System{Getenv: func(string) string { return "" }})
	if err != nil || len(in.Notes) > 0 || in.HTTP != "https://consul.example.com:443" {
		t.Errorf("envoy-extra-args: %+v, %v", in, err)
	}
	var proxy struct{ Outrigger json.RawMessage }
	if err := json.Unmarshal([]byte(annotation("proxy-config-map")), &proxy); err != nil || proxy.Outrigger == nil {
		t.Fatalf("proxy-config-map: %s, %v", proxy.Outrigger, err)
	}
	var base *config.Base
	if _, err := base.Make(config.Layer{From: "proxy-config-map", Data: proxy.Outrigger}); err != nil {
		t.Errorf("proxy-config-map: %v", err)
	}
}

// The image has the names by which it is called, and the path of the probe.
func TestDeployedImage(t *testing.T) {
	text := deployed(t, "container/Containerfile")
	for _, want := range []string{
		"ln -s outrigger /image/usr/local/bin/consul-dataplane", "ln -s outrigger /image/usr/local/bin/envoy",
		"./cmd/outrigger-cni", "COPY --from=build /image/ /\n", `ENTRYPOINT ["/usr/local/bin/outrigger"]`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the Containerfile does not say %s", want)
		}
	}
	for _, name := range []string{"consul-dataplane", "envoy"} {
		if got := standIn("/usr/local/bin/"+name, nil); len(got) != 1 || got[0] != name {
			t.Errorf("the name %s means %q", name, got)
		}
	}
	if !json.Valid([]byte(deployed(t, "cni/10-pods.conflist"))) {
		t.Error("the list of CNI plugins is no JSON")
	}
}

// Nomad's jobs say where Consul's HTTP API is, which the bootstrap file does not.
func TestDeployedConnectJob(t *testing.T) {
	m := regexp.MustCompile(`(?m)^ *CONSUL_HTTP_ADDR = "(.*)"$`).FindStringSubmatch(deployed(t, "nomad/web-connect.nomad.hcl"))
	if m == nil {
		t.Fatal("the job has no CONSUL_HTTP_ADDR")
	}
	address := strings.ReplaceAll(m[1], "${attr.unique.network.ip-address}", "10.0.0.5")
	in, err := dropin.Envoy(strings.Fields("-c envoy_bootstrap.json -l info --concurrency 1 --disable-hot-restart"), dropin.System{
		Getenv: func(name string) string { return map[string]string{"CONSUL_HTTP_ADDR": address}[name] },
		ReadFile: func(string) ([]byte, error) {
			return os.ReadFile(filepath.Join("..", "..", "internal", "dropin", "testdata", "nomad.json"))
		},
	})
	if err != nil || in.HTTP != "http://10.0.0.5:8500" {
		t.Fatalf("%+v, %v", in, err)
	}
	layers, err := asked(in)
	if err != nil {
		t.Fatal(err)
	}
	f := &runFlags{proxyID: in.ProxyID, asked: layers}
	if base, _, err := f.settings(); err != nil || base == nil {
		t.Errorf("settings: %v", err)
	}
}
