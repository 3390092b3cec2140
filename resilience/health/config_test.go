package health

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

func problems(c Config) (list []string) {
	add := func(field, problem string) { list = append(list, field+" "+problem) }
	c.Validate(add)
	if c.GRPC != nil {
		c.GRPC.Validate(add)
	}
	if c.HTTP != nil {
		c.HTTP.Validate(add)
	}
	if c.TCP != nil {
		c.TCP.Validate(add)
	}
	return list
}

func TestValidate(t *testing.T) {
	httpCheck := func(change func(*HTTP)) func(*Config) {
		return func(c *Config) {
			h := DefaultHTTP()
			change(&h)
			c.HTTP, c.TCP = &h, nil
		}
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // the field, and a word of the problem; "" for none
	}{
		"defaults":           {func(*Config) {}, ""},
		"http defaults":      {httpCheck(func(*HTTP) {}), ""},
		"grpc":               {func(c *Config) { c.TCP, c.GRPC = nil, &GRPC{Service: "shop.Cart"} }, ""},
		"no check":           {func(c *Config) { c.TCP = nil }, " says no check"},
		"two checks":         {func(c *Config) { c.GRPC = &GRPC{} }, "tcp is given beside grpc"},
		"mode":               {func(c *Config) { c.Mode = guard.Percent(25) }, "mode must be enforce or observe"},
		"interval":           {func(c *Config) { c.Interval = 2 * time.Hour }, "interval must"},
		"short interval":     {func(c *Config) { c.Interval, c.FastInterval = time.Millisecond, time.Millisecond }, "interval must"},
		"fast interval":      {func(c *Config) { c.FastInterval = time.Minute }, "fast_interval must be between 100ms and interval"},
		"timeout":            {func(c *Config) { c.Timeout = 0 }, "timeout must"},
		"jitter":             {func(c *Config) { c.Jitter = math.NaN() }, "jitter must"},
		"healthy":            {func(c *Config) { c.HealthyThreshold = 0 }, "healthy_threshold must"},
		"unhealthy":          {func(c *Config) { c.UnhealthyThreshold = 101 }, "unhealthy_threshold must"},
		"initial":            {func(c *Config) { c.Initial = 2 }, "initial unknown"},
		"grpc service":       {func(c *Config) { c.TCP, c.GRPC = nil, &GRPC{Service: "a\nb"} }, "service must"},
		"path":               {httpCheck(func(h *HTTP) { h.Path = "health" }), "path must begin with /"},
		"path that smuggles": {httpCheck(func(h *HTTP) { h.Path = "/ HTTP/1.1\r\nx: y" }), "path must"},
		"method":             {httpCheck(func(h *HTTP) { h.Method = "POST" }), "method must"},
		"host":               {httpCheck(func(h *HTTP) { h.Host = "a b" }), "host must"},
		"no statuses":        {httpCheck(func(h *HTTP) { h.Statuses = nil }), "statuses is empty"},
		"statuses":           {httpCheck(func(h *HTTP) { h.Statuses = []Statuses{{300, 200}} }), "statuses has 300-200"},
		"send":               {func(c *Config) { c.TCP.Send = "hex:0g" }, "send begins with hex:"},
		"expect":             {func(c *Config) { c.TCP.Expect = strings.Repeat("x", 1025) }, "expect must be at most"},
	} {
		cfg := Default()
		cfg.TCP = &TCP{Send: "PING\r\n", Expect: "hex:2b504f4e47"}
		c.change(&cfg)
		got := problems(cfg)
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%s: %q", name, got)
		case c.want != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, c.want) }):
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestBytes(t *testing.T) {
	c := TCP{Send: "hex:000d0aff", Expect: "+PONG"}
	if got := string(c.SendBytes()) + "|" + string(c.ExpectBytes()); got != "\x00\r\n\xff|+PONG" {
		t.Errorf("%q", got)
	}
}

func TestStatuses(t *testing.T) {
	for text, want := range map[string]string{
		"204": "204", "200-299": "2xx", "5xx": "5xx", "200-204": "200-204", "2": "", "99": "", "600": "", "6xx": "", "xx": "", "300-200": "", "200-": "", "0200": "", "": "",
	} {
		var s Statuses
		err := s.UnmarshalText([]byte(text))
		switch {
		case want == "" && err == nil:
			t.Errorf("%q is taken as %s", text, s)
		case want != "" && (err != nil || s.String() != want):
			t.Errorf("%q is %s, %v; want %s", text, s, err, want)
		}
	}
	h := HTTP{Statuses: []Statuses{{200, 299}, {401, 401}}}
	for status, want := range map[int]bool{199: false, 200: true, 299: true, 300: false, 401: true, 402: false} {
		if h.Passes(status) != want {
			t.Errorf("%d passes: %t", status, !want)
		}
	}
}

func TestWords(t *testing.T) {
	seen := map[string]bool{}
	for c := range CauseCount {
		if s := c.String(); s == "invalid" || seen[s] {
			t.Errorf("cause %d is %q", c, s)
		}
		seen[c.String()] = true
	}
	if CauseCount.String() != "invalid" || State(9).String() != "invalid" {
		t.Error("a value too many has a word")
	}
	for _, word := range []string{"healthy", "unhealthy"} {
		var i Initial
		if err := i.UnmarshalText([]byte(word)); err != nil {
			t.Error(err)
		}
		if b, _ := i.MarshalText(); string(b) != word {
			t.Errorf("%s comes back as %s", word, b)
		}
	}
	if err := new(Initial).UnmarshalText([]byte("up")); err == nil {
		t.Error("up is taken")
	}
	cfg := Default()
	if cfg.Kind() != "none" {
		t.Errorf("kind %s", cfg.Kind())
	}
}
