package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/proxy/intercept"
)

// versions are those of the CNI specification that are spoken. Before 0.3.0
// plugins could not be chained.
var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// Error codes of the specification, and one of our own (from 100).
const (
	codeVersion          = 1
	codeUnknownContainer = 3
	codeEnvironment      = 4
	codeIO               = 5
	codeDecode           = 6
	codeConfig           = 7
	codeLater            = 11
	codeRules            = 100
)

// maxConf bounds what is read from standard input.
const maxConf = 4 << 20

// cniError is an error with its code.
type cniError struct {
	code         uint
	msg, details string
}

func (e *cniError) Error() string {
	if e.details == "" {
		return e.msg
	}
	return e.msg + ": " + e.details
}

// asError is how the specification wants an error to be printed.
func asError(conf *netConf, err error) any {
	e := &cniError{codeRules, err.Error(), ""}
	errors.As(err, &e)
	v := versions[len(versions)-1]
	if conf != nil && slices.Contains(versions, conf.CNIVersion) {
		v = conf.CNIVersion
	}
	out := struct {
		CNIVersion string `json:"cniVersion"`
		Code       uint   `json:"code"`
		Msg        string `json:"msg"`
		Details    string `json:"details,omitempty"`
	}{v, e.code, "outrigger-cni: " + e.msg, e.details}
	return out
}

func write(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// netConf is the network's configuration, with the keys that are ours. Those
// of consul-cni have its names, so that its file can be kept with another type.
type netConf struct {
	CNIVersion string          `json:"cniVersion"`
	Name       string          `json:"name"`
	PrevResult json.RawMessage `json:"prevResult"`
	Runtime    struct {
		// Annotations are those of the pod, which containerd and CRI-O pass
		// where the plugin has the capability of this name.
		Annotations map[string]string `json:"io.kubernetes.cri.pod-annotations"`
	} `json:"runtimeConfig"`

	// Kubeconfig is a file by which pods are read from the Kubernetes API; a
	// relative path is below CNINetDir.
	Kubeconfig string `json:"kubeconfig"`
	CNINetDir  string `json:"cni_net_dir"`

	Table       string                `json:"table"`
	BeforeReady intercept.BeforeReady `json:"before_ready"`
	Mode        intercept.Mode        `json:"mode"`
}

func readConf(r io.Reader) (*netConf, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxConf))
	if err != nil {
		return nil, &cniError{codeIO, "reading the network configuration", err.Error()}
	}
	conf := &netConf{}
	if err := json.Unmarshal(b, conf); err != nil {
		return nil, &cniError{codeDecode, "the network configuration is not the JSON that it should be", err.Error()}
	}
	return conf, nil
}

// supported reports whether the command is one of the configuration's version.
func (c *netConf) supported(command string) error {
	at := slices.Index(versions, c.CNIVersion)
	since := map[string]string{"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}[command]
	if at < 0 {
		return &cniError{codeVersion, fmt.Sprintf("version %q of CNI is not supported", c.CNIVersion), "supported: " + strings.Join(versions, ", ")}
	}
	if since != "" && at < slices.Index(versions, since) {
		return &cniError{codeVersion, fmt.Sprintf("%s is there since version %s of CNI, and the network configuration has %s", command, since, c.CNIVersion), ""}
	}
	return nil
}

// previous returns the result of the plugin before, as it is: it has the form
// of the configuration's version already.
func (c *netConf) previous() (any, error) {
	var r map[string]any
	if len(c.PrevResult) == 0 || json.Unmarshal(c.PrevResult, &r) != nil || r == nil {
		return nil, &cniError{codeConfig, "there is no prevResult: the plugin must come after the one that gives the pod its interface", ""}
	}
	return c.PrevResult, nil
}

func (c *netConf) table() string {
	if c.Table == "" {
		return intercept.DefaultTable
	}
	return c.Table
}

// parseArgs reads CNI_ARGS: pairs with = between, separated by semicolons.
func parseArgs(s string) (map[string]string, error) {
	m := map[string]string{}
	for pair := range strings.SplitSeq(s, ";") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, &cniError{codeEnvironment, fmt.Sprintf("CNI_ARGS: %q is no pair KEY=VALUE", pair), ""}
		}
		m[strings.TrimSpace(k)] = v
	}
	return m, nil
}

// The keys of what says which rules a pod wants.
const (
	nomadArg       = "CONSUL_IPTABLES_CONFIG"
	annotationJSON = "consul.hashicorp.com/redirect-traffic-config"
	annotationMesh = "consul.hashicorp.com/connect-inject-status"
	annotationWant = "consul.hashicorp.com/transparent-proxy-status"
)

// wanted says which rules the pod wants, or nil where it wants none: it is not
// in the mesh. Nomad passes them as a CNI argument; in Kubernetes they are an
// annotation, passed by the runtime or read from the API.
func (c *netConf) wanted(ctx context.Context, args map[string]string) (*intercept.Config, error) {
	if text := args[nomadArg]; text != "" {
		return c.parse(text, nomadArg)
	}
	annotations := c.Runtime.Annotations
	if annotations == nil {
		namespace, pod := args["K8S_POD_NAMESPACE"], args["K8S_POD_NAME"]
		if namespace == "" || pod == "" || c.Kubeconfig == "" {
			return nil, nil
		}
		var err error
		if annotations, err = c.readAnnotations(ctx, namespace, pod); err != nil {
			return nil, &cniError{codeLater, fmt.Sprintf("reading the annotations of pod %s/%s", namespace, pod), err.Error()}
		}
	}
	if annotations[annotationMesh] == "" || annotations[annotationWant] == "" {
		return nil, nil
	}
	text := annotations[annotationJSON]
	if text == "" {
		return nil, &cniError{codeConfig, "the pod wants a transparent proxy, but has no annotation " + annotationJSON, ""}
	}
	return c.parse(text, annotationJSON)
}

func (c *netConf) parse(text, from string) (*intercept.Config, error) {
	cfg, err := intercept.ParseConsul(text)
	if err == nil {
		cfg.Table, cfg.BeforeReady, cfg.Mode = c.Table, c.BeforeReady, c.Mode
		cfg.NetNS = "" // the runtime says which
		if c.BeforeReady == intercept.Allow {
			err = errors.New("before_ready: allow waits for the proxy, which starts after this plugin: give hold or refuse")
		}
		err = errors.Join(err, cfg.Complete())
	}
	if err != nil {
		return nil, &cniError{codeConfig, from, err.Error()}
	}
	return &cfg, nil
}
