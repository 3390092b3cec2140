package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExpose(t *testing.T) {
	load := func(expose string) (*Loaded, error) {
		file := filepath.Join(t.TempDir(), "web.yaml")
		text := "service: {name: web, port: 8080}\ninbound:\n  listen: \"127.0.0.1:15006\"\n  mtls: \"off\"\n  expose: [" + expose + "]\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(file)
	}
	l, err := load(`{listen: "0.0.0.0:21500", path: /healthz}`)
	if err != nil {
		t.Fatal(err)
	}
	if e := l.Config.Inbound.Expose; len(e) != 1 || e[0].Protocol != ProtocolHTTP || e[0].Path != "/healthz" {
		t.Errorf("%+v", e)
	}
	for text, want := range map[string]string{
		`{path: /x}`:                                                 "listen: is required",
		`{listen: "0.0.0.0:21500"}`:                                  "write a path such as",
		`{listen: "0.0.0.0:21500", path: "/x?y"}`:                    "write a path such as",
		`{listen: "0.0.0.0:21500", path: /x, port: 70000}`:           "write a port from 1",
		`{listen: "0.0.0.0:21500", path: /x, protocol: tcp}`:         "http",
		`{listen: "127.0.0.1:15006", path: /x}`:                      "inbound.listen already takes",
		`{listen: ":1", path: /x}`:                                   "expose[0].listen",
		`{listen: "[::]:1", path: /x}, {listen: "[::]:1", path: /y}`: "expose[0].listen already takes",
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
