package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnixSockets(t *testing.T) {
	load := func(text string) (*Loaded, error) {
		file := filepath.Join(t.TempDir(), "web.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(file)
	}
	calls := func(upstreams string) (*Loaded, error) {
		return load("service: {name: web}\ndiscovery: {file: {path: catalog.yaml}}\npolicies: {\"*\": {transport: plaintext}}\noutbound:\n  upstreams: [" + upstreams + "]\n")
	}
	l, err := calls(`{service: api, listen: "unix:/run/api.sock", socket_mode: "0660"}, {service: db, listen: "unix:///run/db.sock"}`)
	if err != nil {
		t.Fatal(err)
	}
	checkRoundTrip(t, l)
	u := l.Config.Outbound.Upstreams
	if mode, err := SocketPermissions(u[0].SocketMode); mode != 0o660 || err != nil {
		t.Errorf("mode %v %v", mode, err)
	}
	if mode, err := SocketPermissions(u[1].SocketMode); mode != 0 || err != nil {
		t.Errorf("mode %v %v", mode, err)
	}
	for i, want := range []string{"/run/api.sock", "/run/db.sock"} {
		if path, ok := SocketPath(u[i].Listen); path != want || !ok {
			t.Errorf("path %q %v", path, ok)
		}
	}
	if p := l.Config.ServiceProtocol("api"); p != ProtocolHTTP {
		t.Errorf("protocol %s", p)
	}
	if _, ok := SocketPath("127.0.0.1:80"); ok {
		t.Error("an IP address is no socket")
	}
	for text, want := range map[string]string{
		`{service: api, listen: "unix:run/api.sock"}`:                                   "upstreams[0].listen: is a Unix socket without a whole path",
		`{service: api, listen: "unix:"}`:                                               "without a whole path",
		`{service: api, listen: "unix:@api"}`:                                           "without a whole path",
		`{service: api, listen: "unix:/run/../api.sock"}`:                               "without a whole path",
		`{service: api, listen: "unix:/run/api.sock/"}`:                                 "without a whole path",
		`{service: api, listen: "unix:/` + strings.Repeat("x", 107) + `"}`:              "has a path of 108 bytes",
		`{service: api, listen: "unix:/run/s"}, {service: db, listen: "unix:///run/s"}`: "upstreams[1].listen: is unix:/run/s, which outbound.upstreams[0].listen already takes",
		`{service: api, listen: "unix:/run/s", socket_mode: "rw"}`:                      "upstreams[0].socket_mode: is \"rw\"; write the permissions in octal digits",
		`{service: api, listen: "unix:/run/s", socket_mode: "1777"}`:                    "octal digits",
		`{service: api, listen: "unix:/run/s", socket_mode: "0"}`:                       "octal digits",
		`{service: api, listen: "unix:/run/s", socket_mode: 0660}`:                      "must be text",
		`{service: api, listen: "127.0.0.1:9001", socket_mode: "0660"}`:                 "has no effect: listen is no Unix socket",
	} {
		if _, err := calls(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	app := func(service string) (*Loaded, error) {
		return load("service: {name: web, " + service + "}\ninbound: {listen: \"127.0.0.1:15006\", mtls: \"off\"}\n")
	}
	if l, err := app(`address: "unix:/run/web.sock"`); err != nil || !l.Config.Service.Called() {
		t.Errorf("%v", err)
	} else {
		checkRoundTrip(t, l)
	}
	for text, want := range map[string]string{
		`address: "unix:web.sock"`:                "service.address: is a Unix socket without a whole path",
		`address: "unix:/run/web.sock", port: 80`: "service.port: is 80 beside a Unix socket, unix:/run/web.sock; remove one of them",
		`address: "localhost"`:                    "or the path of a Unix socket",
		`address: "127.0.0.1"`:                    "inbound.listen: is never opened",
	} {
		if _, err := app(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := load("service: {name: web}\nadmin: {listen: \"unix:/run/admin.sock\"}\n"); err == nil || !strings.Contains(err.Error(), "write an IP address and a port") {
		t.Errorf("%v", err)
	}
}
