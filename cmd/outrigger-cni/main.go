// Command outrigger-cni is a chained CNI plugin that writes the rules of interception into a pod's network namespace.
//
// It is called by a container runtime, after the plugin that gives the pod its
// interface, by the conventions of the CNI specification (0.3.0 to 1.1.0):
// what to do is in the environment, the network's configuration on standard
// input, the result or an error as JSON on standard output.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/intercept"
)

// Set by the linker.
var version = "dev"

// callTime bounds one call: a runtime that waits for longer gives the pod up.
const callTime = 60 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	code := run(ctx, filepath.Base(os.Args[0]), os.Getenv, os.Stdin, os.Stdout)
	cancel()
	os.Exit(code)
}

// standsFor is the version of consul-cni that the plugin can replace. Nomad
// takes the first version that a plugin prints, and asks for this one at least
// before it places a job with a transparent proxy.
const standsFor = "1.4.2"

// run makes one call and returns the exit code. The name is that under which
// the plugin is installed.
func run(ctx context.Context, name string, getenv func(string) string, stdin io.Reader, stdout io.Writer) int {
	command := getenv("CNI_COMMAND")
	if command == "" { // started by hand
		if name == "consul-cni" {
			_, _ = fmt.Fprintf(stdout, "CNI plugin consul-cni %s (in its place: the following)\n", standsFor)
		}
		_, _ = fmt.Fprintf(stdout, "outrigger-cni %s: a CNI plugin, called by container runtimes (specification %s to %s)\n", version, versions[0], versions[len(versions)-1])
		return 0
	}
	conf, err := readConf(stdin)
	var out any
	if err == nil {
		out, err = call(ctx, command, getenv, conf)
	}
	if err == nil && out != nil {
		err = write(stdout, out)
	}
	if err != nil {
		_ = write(stdout, asError(conf, err))
		return 1
	}
	return 0
}

// call does what the runtime asks for and returns what is to be printed.
func call(ctx context.Context, command string, getenv func(string) string, conf *netConf) (any, error) {
	if command == "VERSION" {
		return map[string]any{"cniVersion": conf.CNIVersion, "supportedVersions": versions}, nil
	}
	if err := conf.supported(command); err != nil {
		return nil, err
	}
	if command == "STATUS" || command == "GC" {
		return nil, nil // there is nothing that could not be ready, or be left
	}
	args, err := parseArgs(getenv("CNI_ARGS"))
	if err != nil {
		return nil, err
	}
	if getenv("CNI_CONTAINERID") == "" || getenv("CNI_IFNAME") == "" {
		return nil, &cniError{codeEnvironment, "CNI_CONTAINERID and CNI_IFNAME must be set", ""}
	}
	netns := getenv("CNI_NETNS")
	switch command {
	case "ADD":
		return add(ctx, netns, args, conf)
	case "CHECK":
		return nil, check(ctx, netns, args, conf)
	case "DEL":
		return nil, del(netns, conf)
	}
	return nil, &cniError{codeEnvironment, fmt.Sprintf("CNI_COMMAND %q is not known", command), ""}
}

// add writes the rules, where the pod wants any, and hands on the result of
// the plugin before.
func add(ctx context.Context, netns string, args map[string]string, conf *netConf) (any, error) {
	result, err := conf.previous()
	if err != nil {
		return nil, err
	}
	c, err := conf.wanted(ctx, args)
	if err != nil || c == nil {
		return result, err
	}
	return result, inside(netns, func(h *intercept.Host) error { return h.Install(ctx, *c) })
}

// check sees whether the rules are as they were meant.
func check(ctx context.Context, netns string, args map[string]string, conf *netConf) error {
	if _, err := conf.previous(); err != nil {
		return err
	}
	c, err := conf.wanted(ctx, args)
	if err != nil || c == nil {
		return err
	}
	return inside(netns, func(h *intercept.Host) error {
		s, err := h.Status(c.Table, c)
		if err == nil && s.State != intercept.Installed {
			err = &cniError{codeRules, "the rules are not as they were meant: " + string(s.State), fmt.Sprint(s.Differences)}
		}
		return err
	})
}

// del takes the rules away, as far as there is still something to take them
// from: a namespace that is gone has none.
func del(netns string, conf *netConf) error {
	if netns == "" {
		return nil
	}
	if _, err := os.Stat(netns); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return inside(netns, func(h *intercept.Host) error {
		_, err := h.Remove(conf.table())
		return err
	})
}

// inside runs f with the pod's network namespace.
func inside(path string, f func(*intercept.Host) error) error {
	if path == "" {
		return &cniError{codeEnvironment, "CNI_NETNS must be set", ""}
	}
	ns, err := intercept.OpenNamespace(path)
	if errors.Is(err, os.ErrNotExist) {
		return &cniError{codeUnknownContainer, "the pod's network namespace is not there", err.Error()}
	}
	if err != nil {
		return &cniError{codeEnvironment, "CNI_NETNS", err.Error()}
	}
	defer func() { _ = ns.Close() }()
	return f(intercept.NewHost(ns))
}
