// Package dropin reads the command lines and files of the proxies that Outrigger takes the place of: consul-dataplane and Envoy beside Consul.
package dropin

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Invocation is what such a command line asks for, in words of our own.
type Invocation struct {
	// CheckHealth asks the running proxy at Admin whether it is ready, and nothing else.
	CheckHealth bool
	// ShowVersion prints the version, and nothing else.
	ShowVersion bool

	// ProxyID is the ID under which the sidecar is registered; Node is the node of
	// the catalog, empty where an agent knows it.
	ProxyID, Node        string
	Namespace, Partition string

	// HTTP and GRPC are addresses as identity.consul and discovery.consul take
	// them. HTTP is empty where the command line has no way to tell it.
	HTTP, GRPC string
	// CAFile, CertFile, KeyFile and ServerName are for both; CAPEM are
	// authorities that stand in the file itself.
	CAFile, CertFile, KeyFile, ServerName string
	CAPEM                                 string

	// Token is an ACL token that was given; Login says how one is had.
	Token string
	Login *Login

	// Addresses; empty for what is not wanted.
	Admin, Ready, Graceful, DNS string
	// Metrics is where Prometheus comes, Scrape the path there.
	Metrics, Scrape string

	ShutdownPath, StartupPath string
	// Drain says whether listeners end in order, ShutdownGrace for how long after
	// SIGTERM the proxy goes on.
	Drain         bool
	ShutdownGrace time.Duration
	// StartupGrace is how long the proxy takes to be ready at most before the
	// request for StartupPath is answered.
	StartupGrace time.Duration

	LogLevel string // "debug", "info", "warn" or "error"
	LogJSON  bool
	// Processors is how many are used at a time; 0 is not said.
	Processors int

	// Notes say what was accepted and does nothing here, and why.
	Notes []string
}

// Login is an ACL login through an auth method.
type Login struct {
	Method, Namespace, Partition, Datacenter string
	Bearer, BearerFile                       string
	Meta                                     map[string]string
}

// System is what the parsers need beside the arguments; tests replace it.
type System struct {
	Getenv   func(string) string
	ReadFile func(string) ([]byte, error)
	// Output runs a program and returns what it wrote.
	Output func(name string, args ...string) ([]byte, error)
}

// ReadSystem is the process's own.
func ReadSystem(output func(name string, args ...string) ([]byte, error)) System {
	return System{Getenv: os.Getenv, ReadFile: os.ReadFile, Output: output}
}

func (in *Invocation) note(format string, args ...any) {
	in.Notes = append(in.Notes, fmt.Sprintf(format, args...))
}

// logLevel takes the words of Envoy, Nomad and consul-dataplane.
func (in *Invocation) logLevel(flag, word string) error {
	switch word = strings.ToLower(word); word {
	case "trace":
		in.LogLevel = "debug"
	case "debug", "info", "error":
		in.LogLevel = word
	case "warn", "warning":
		in.LogLevel = "warn"
	case "critical", "off":
		in.LogLevel = "error"
	default:
		return fmt.Errorf("%s is %q; use trace, debug, info, warn or error", flag, word)
	}
	return nil
}

// address joins host and port; it is empty for a port that is none.
func address(host string, port int) string {
	if port <= 0 {
		return ""
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// firstLine is the beginning of what a program wrote, for messages.
func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	if len(line) > 200 {
		line = line[:200]
	}
	return string(line)
}
