package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
)

func TestLoad(t *testing.T) {
	got, err := Load("testdata/good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, s := range got {
		text = append(text, strings.Join(append([]string{s.Name, s.Protocol, s.Source}, s.Identities...), " "))
		for _, e := range s.Endpoints {
			text = append(text, strings.TrimSpace(strings.Join([]string{"", e.Address.String(), e.ID, e.Health.String(), strings.Join(e.Tags, ","), e.Meta["zone"]}, " ")))
		}
	}
	want := []string{
		"api http file testdata/good.yaml spiffe://example.org/api",
		"10.0.0.4:8080  passing",
		"10.0.0.5:8080 api-1 warning blue,v2 a",
		"127.0.0.1:9000  passing",
		"[fd00::1]:8080  critical",
		"db tcp file testdata/good.yaml",
		"10.0.0.7:5432  passing",
		"none  file testdata/good.yaml",
	}
	if g, w := strings.Join(text, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	if w := got[0].Endpoints[1].Weight; w != 2 {
		t.Errorf("weight %d, want 2", w)
	}
	if w := got[0].Endpoints[0].Weight; w != 1 {
		t.Errorf("default weight %d, want 1", w)
	}
}

func TestMistakes(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want string }{
		{"empty", "", `c.yaml: the catalog is empty; write "services: {}" if there is none`},
		{"only a comment", "# nothing\n", `c.yaml: the catalog is empty; write "services: {}" if there is none`},
		{"unknown key", "services:\n  api:\n    protocoll: http\n", `c.yaml:3:5: unknown field "protocoll"`},
		{"unknown top key", "service: {}\n", `c.yaml:1:1: unknown field "service"`},
		{"duplicate service", "services:\n  api: {}\n  api: {}\n", `c.yaml:3:3: mapping key "api" already defined at [2:3]`},
		{"two documents", "services: {}\n---\nservices: {}\n", "c.yaml: the catalog holds more than one YAML document"},
		{"not YAML", "services: [\n", "c.yaml:1:11: sequence end token ']' not found"},
		{"wrong type", "services:\n  api: {endpoints: 5}\n", "c.yaml:2:20: "},
		{"weight is text", "services:\n  api: {endpoints: [{address: \"10.0.0.1:80\", weight: heavy}]}\n", "c.yaml:2:54: "},
		{
			"host name", "services:\n  api:\n    endpoints:\n      - address: \"api.local:80\"\n",
			`c.yaml:4:18: services.api.endpoints[0].address: "api.local:80" is not an IP address with a port, such as 10.0.0.5:8080; host names belong to discovery.dns`,
		},
		{
			"port 0", "services: {api: {endpoints: [{address: \"10.0.0.1:0\"}]}}\n",
			`c.yaml:1:40: services.api.endpoints[0].address: "10.0.0.1:0" is not an IP address with a port, such as 10.0.0.5:8080; host names belong to discovery.dns`,
		},
		{
			"no address", "services:\n  api:\n    endpoints:\n      - weight: 2\n",
			`c.yaml:4:9: services.api.endpoints[0].address: is required; write an IP address with a port, such as 10.0.0.5:8080`,
		},
		{
			"several at once", "services:\n  a.b:\n    protocol: ftp\n    identities: [a/b]\n    endpoints:\n      - {address: \"10.0.0.1:1\", weight: 0}\n      - {address: \"10.0.0.1:1\", health: fine}\n",
			`c.yaml:3:15: services.a.b.protocol: unknown protocol "ftp"; use http or tcp
c.yaml:4:18: services.a.b.identities[0]: "a/b" is not a SPIFFE ID; it starts with spiffe://
c.yaml:6:41: services.a.b.endpoints[0].weight: 0 is out of range; use 1 to 65535
c.yaml:7:41: services.a.b.endpoints[1].health: unknown health "fine"; use passing, warning or critical
c.yaml:7:19: services.a.b.endpoints[1].address: 10.0.0.1:1 is already endpoint 0; give them different ids if both are meant`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decode("c.yaml", []byte(tt.yaml), time.Time{})
			if err == nil {
				t.Fatal("it was taken")
			}
			if got := err.Error(); got != tt.want && !(strings.HasSuffix(tt.want, ": ") && strings.HasPrefix(got, tt.want)) {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestManyMistakesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("services:\n  api:\n    identities:\n")
	for range 300 {
		b.WriteString("      - nobody\n")
	}
	_, err := decode("c.yaml", []byte(b.String()), time.Time{})
	if err == nil {
		t.Fatal("it was taken")
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 101 {
		t.Errorf("%d lines, want 101", n)
	}
}

func TestTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, maxCatalog+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

func TestValidate(t *testing.T) {
	if _, err := New(Config{}); err == nil || err.Error() != "discovery.file.path is required; name the catalog file" {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	good, err := os.ReadFile("testdata/good.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("services: {api: {endpoints: [{address: \"[::1]:80\", weight: 65535}]}}"))
	f.Add([]byte("services: &a\n  api: {endpoints: []}\n  b: *a\n"))
	f.Add([]byte("services: {? [a] : {}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		services, err := decode("c.yaml", data, time.Time{})
		if err != nil {
			return
		}
		for _, s := range services {
			if s.Name == "" {
				t.Fatal("a service without a name")
			}
			for i, e := range s.Endpoints {
				if !e.Address.IsValid() || e.Address.Port() == 0 || e.Weight < 1 || e.Weight > discovery.MaxWeight {
					t.Fatalf("took %+v", e)
				}
				if i > 0 && s.Endpoints[i-1].Address.Compare(e.Address) > 0 {
					t.Fatal("not sorted")
				}
			}
		}
	})
}
