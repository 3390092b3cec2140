package consul

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	with := func(change func(*Config)) Config {
		c := Default()
		c.Register = &Register{}
		change(&c)
		return c
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"defaults", func(c *Config) {}, ""},
		{"addresses", func(c *Config) { c.Address = "https://consul.local:8501/prefix" }, ""},
		{"socket", func(c *Config) { c.Address = "unix:///run/consul.sock" }, ""},
		{"bare", func(c *Config) { c.Address = "127.0.0.1:8500" }, ""},
		{"bad scheme", func(c *Config) { c.Address = "tcp://127.0.0.1:8500" }, `address: has the scheme "tcp"; use http, https or unix`},
		{"no host", func(c *Config) { c.Address = "http://" }, `address: is "http://"; write http://host:port, https://host:port or unix:///path`},
		{"user", func(c *Config) { c.Address = "http://u:p@h" }, `address: is "http://u:p@h"; write http://host:port, https://host:port or unix:///path`},
		{"relative socket", func(c *Config) { c.Address = "unix://run" }, `address: is "unix://run"; a socket needs an absolute path, such as unix:///run/consul/http.sock`},
		{"two tokens", func(c *Config) { c.Token, c.TokenFile = "a", "b" }, "token: and token_file are both set; keep one"},
		{"token of two lines", func(c *Config) { c.Token = "a\nb" }, "token: contains a line break"},
		{"key only", func(c *Config) { c.TLS.KeyFile = "k" }, "tls.cert_file: is required with key_file"},
		{"cert only", func(c *Config) { c.TLS.CertFile = "k" }, "tls.key_file: is required with cert_file"},
		{"check of no kind", func(c *Config) { c.Register.Check = &Check{} }, "register.check: has 0 of http, tcp and ttl; write exactly one"},
		{"check of two kinds", func(c *Config) { c.Register.Check = &Check{TCP: "a:1", TTL: time.Second} }, "register.check: has 2 of http, tcp and ttl; write exactly one"},
		{"a login", func(c *Config) { c.Login = &Login{AuthMethod: "k8s", BearerTokenFile: "/t"} }, ""},
		{"a login without all", func(c *Config) { c.Login, c.Token = new(Login), "x" }, `login.auth_method: is required
login.bearer_token_file: is required
login: and a token are both set; keep one`},
		{"a sidecar", func(c *Config) { c.Register, c.Sidecar = nil, &Sidecar{For: "web"} }, ""},
		{"a sidecar of no name", func(c *Config) { c.Register, c.Sidecar = nil, &Sidecar{Polls: 3} }, `sidecar: names no sidecar; give the service it is for in for, or its own ID in proxy_id
sidecar.polls: is below 16, which the registration, the intentions and the detection of changes need`},
		{"a sidecar of two names", func(c *Config) { c.Register, c.Sidecar = nil, &Sidecar{For: "w", ProxyID: `w"`} }, `sidecar.for: and proxy_id are both set; keep one
sidecar.proxy_id: contains a space, a quote or one of / ? # \`},
		{"a sidecar to register", func(c *Config) { c.Sidecar = &Sidecar{For: "web"} }, "register.definition: is required to register a sidecar of Consul's mesh"},
		{"a definition of no sidecar", func(c *Config) { c.Register.Definition = "/d" }, "register.definition: is only for a sidecar of Consul's mesh; name it in sidecar"},
		{"good check", func(c *Config) { c.Register.Check = &Check{HTTP: "http://127.0.0.1:1/health"} }, ""},
		{"all of register", func(c *Config) {
			c.Register.ID, c.Register.Port = "a/b", 70000
			c.Register.Check = &Check{HTTP: "ftp://x", Interval: time.Millisecond, Timeout: -1, DeregisterAfter: time.Second}
		}, `register.id: is "a/b"; spaces and the characters / ? # are not allowed
register.port: is 70000; write a number from 1 to 65535
register.check.http: is "ftp://x"; write a URL such as http://127.0.0.1:8080/health
register.check.interval: is 1ms; the least that Consul takes is 1s
register.check.timeout: is negative
register.check.deregister_after: is 1s; the least that Consul takes is 1m`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			c := with(tt.change)
			c.Validate(func(field, problem string) { got = append(got, field+": "+problem) })
			if g := strings.Join(got, "\n"); g != tt.want {
				t.Errorf("got\n%s\nwant\n%s", g, tt.want)
			}
			if _, err := New(c); (err == nil) != (tt.want == "") {
				t.Errorf("New: %v", err)
			}
		})
	}
}

func TestTokenOrder(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours, theirs := file("ours", " from-file\n"), file("theirs", "from-env-file")
	for _, tt := range []struct {
		name, envToken, envFile string
		cfg                     Config
		want                    string
	}{
		{"none", "", "", Config{}, ""},
		{"CONSUL_HTTP_TOKEN", "from-env", "", Config{}, "from-env"},
		{"CONSUL_HTTP_TOKEN_FILE", "from-env", theirs, Config{}, "from-env-file"},
		{"token", "from-env", theirs, Config{Token: "from-config"}, "from-config"},
		{"token_file", "from-env", theirs, Config{TokenFile: ours}, "from-file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("CONSUL_HTTP_TOKEN", tt.envToken)
			t.Setenv("CONSUL_HTTP_TOKEN_FILE", tt.envFile)
			if got, err := newTokens(tt.cfg).get(); err != nil || got != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	put := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tok := newTokens(Config{TokenFile: path})
	want := func(value, failure string) {
		t.Helper()
		got, err := tok.get()
		if got != value || (err == nil) != (value != "") {
			t.Errorf("got %q, %v; want %q", got, err, value)
		}
		if p := tok.problem(); (p == nil) != (failure == "") || p != nil && !strings.Contains(p.Error(), failure) {
			t.Errorf("problem %v, want one with %q", p, failure)
		}
	}
	want("", "no such file")
	first := tok.valid()
	put("one\n")
	want("one", "")
	if first.Err() == nil {
		t.Error("a token that appears does not wake up who waits")
	}
	second := tok.valid()
	want("one", "")
	if second.Err() != nil {
		t.Error("reading the same token again counts as a change")
	}
	// What is being rewritten or lost leaves the token that works.
	put("")
	want("one", "is empty")
	put("one\ntwo\n")
	want("one", "more than one token")
	put(strings.Repeat("x", maxToken+1))
	want("one", "more than one token")
	if second.Err() != nil {
		t.Error("a bad file counts as a change")
	}
	put("two")
	want("two", "")
	if second.Err() == nil {
		t.Error("a new token does not end the queries with the old one")
	}
}

func TestAddressAndEnvironment(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "https://env:8501")
	for _, tt := range []struct{ address, want string }{
		{"", "https://env:8501"},
		{"http://mine:1", "http://mine:1"},
	} {
		c, err := newClient(Config{Address: tt.address}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.where != tt.want {
			t.Errorf("%q: got %q, want %q", tt.address, c.where, tt.want)
		}
	}
	// A token file that is not there must not keep the proxy from starting.
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", "/nonexistent")
	if _, err := New(Config{}); err != nil {
		t.Errorf("New: %v", err)
	}
	if _, err := New(Config{TLS: TLS{CAFile: "/nonexistent"}}); err == nil {
		t.Error("a missing ca_file was taken")
	}
}
