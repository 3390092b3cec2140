package config

import (
	"strings"
	"time"
)

// Lifecycle is what orchestrators without native sidecars call from the hooks of
// the application's container.
type Lifecycle struct {
	// Where, "IP:PORT" with a loopback address.
	Listen string `yaml:"listen"`
	// The path that ends the proxy as SIGTERM does, by GET or POST. It is answered at once.
	ShutdownPath string `yaml:"shutdown_path"`
	// The path that is answered when the proxy is ready: 200, or 503 after startup_timeout.
	StartupPath string `yaml:"startup_path"`
	// How long startup_path waits. At most 50s.
	StartupTimeout time.Duration `yaml:"startup_timeout"`
}

// SetDefaults implements Defaulter. The values are those of consul-dataplane.
func (l *Lifecycle) SetDefaults() {
	*l = Lifecycle{Listen: "127.0.0.1:20300", ShutdownPath: "/graceful_shutdown", StartupPath: "/graceful_startup", StartupTimeout: 10 * time.Second}
}

// maxStartupTimeout leaves an answer time to be written before the connection's
// own limit.
const maxStartupTimeout = 50 * time.Second

// lifecycle checks the further addresses of the admin section.
func (v *validator) lifecycle() {
	a := &v.Admin
	if !urlPath(a.MetricsPath) {
		v.say("admin.metrics_path", "is %q; write a path such as /metrics", a.MetricsPath)
	}
	l := a.Lifecycle
	if l == nil {
		return
	}
	addr, problem := parseListen(l.Listen)
	switch {
	case problem != "":
		v.say("admin.lifecycle.listen", "%s", problem)
	case !addr.Addr().IsLoopback():
		v.say("admin.lifecycle.listen", "is %s, from which others could end the proxy; write a loopback address such as 127.0.0.1:%d", addr, addr.Port())
	}
	if !urlPath(l.ShutdownPath) {
		v.say("admin.lifecycle.shutdown_path", "is %q; write a path such as /graceful_shutdown", l.ShutdownPath)
	}
	switch {
	case !urlPath(l.StartupPath):
		v.say("admin.lifecycle.startup_path", "is %q; write a path such as /graceful_startup", l.StartupPath)
	case l.ShutdownPath == l.StartupPath:
		v.say("admin.lifecycle.startup_path", "is the same as shutdown_path; whoever waits for the start would end the proxy")
	}
	if l.StartupTimeout < 0 || l.StartupTimeout > maxStartupTimeout {
		v.say("admin.lifecycle.startup_timeout", "is %s; write a time from 0 to %s", formatDuration(l.StartupTimeout), formatDuration(maxStartupTimeout))
	}
}

// urlPath reports whether s is a plain path.
func urlPath(s string) bool {
	return strings.HasPrefix(s, "/") && !strings.ContainsAny(s, " {}?#")
}
