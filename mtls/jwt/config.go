// Package jwt verifies the tokens (JWT, RFC 7519) that requests carry, and remembers those that it has verified.
package jwt

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

// Provider is an issuer of tokens whose signatures are verified here.
type Provider struct {
	// The name by which rules name the provider. Required.
	Name string `yaml:"name"`
	// What the claim iss of its tokens is. Required.
	Issuer string `yaml:"issuer"`
	// Of which the claim aud must have one. Empty: it is not looked at.
	Audiences []string `yaml:"audiences"`
	// The public keys.
	Keys Keys `yaml:"keys"`
	// Where in a request tokens are looked for, in order. Empty: "Authorization: Bearer TOKEN" and the query parameter access_token.
	Locations []Location `yaml:"locations"`
	// The header field in which the application gets the payload of a verified token, in base64url. What
	// callers send under that name is dropped. Empty: none.
	ForwardPayload string `yaml:"forward_payload"`
	// Whether that payload is padded with "=".
	PadPayload bool `yaml:"pad_payload"`
	// By how much clocks may differ where exp and nbf are looked at. 0: 30s.
	ClockSkew time.Duration `yaml:"clock_skew"`
	// How many verified tokens are remembered, so that they are not verified again. 0: 1024.
	Cache int `yaml:"cache"`
}

// Keys say where the public keys (a JWK Set, RFC 7517) come from: exactly one of
// inline, file and url.
type Keys struct {
	// The set itself, as JSON.
	Inline string `yaml:"inline"`
	// A file with it, which is read again when the configuration is applied.
	File string `yaml:"file"`
	// Where it is fetched from, by http or https.
	URL string `yaml:"url"`
	// How long a fetch may take. 0: 1s.
	Timeout time.Duration `yaml:"timeout"`
	// How long connecting for a fetch may take, and again the TLS handshake, both within timeout. 0: as long as that.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// After what time it is fetched again. After a failure it is tried again sooner. 0: 5m.
	Refresh time.Duration `yaml:"refresh"`
	// The pause after the first failure in a row; it doubles with each further one. Pauses are of random length, down to half of that. 0: 1s.
	RetryBase time.Duration `yaml:"retry_base"`
	// The longest such pause. 0: 30s.
	RetryMax time.Duration `yaml:"retry_max"`
	// How many times it is tried again at growing pauses before they are retry_max. 0: until they are.
	RetryTimes int `yaml:"retry_times"`
	// The roots for https, a PEM file. Empty: those of the system.
	CA string `yaml:"ca"`
}

// Location is a place in a request where a token may be: exactly one of header,
// query and cookie.
type Location struct {
	// The name of a header field.
	Header string `yaml:"header"`
	// What stands before the token in that field, such as "Bearer ".
	Prefix string `yaml:"prefix"`
	// Whether the application gets that field, too; else it is dropped once its token is verified.
	Forward bool `yaml:"forward"`
	// The name of a query parameter. It is always passed on.
	Query string `yaml:"query"`
	// The name of a cookie. It is always passed on.
	Cookie string `yaml:"cookie"`
}

// Bounds and defaults.
const (
	// MaxToken is the longest token that is looked at, in bytes.
	MaxToken       = 16 << 10
	DefaultSkew    = 30 * time.Second
	DefaultCache   = 1024
	DefaultTimeout = time.Second
	DefaultRefresh = 5 * time.Minute
	// MaxRetry bounds retry_base, retry_max; MaxRetries retry_times; MaxTimeout the timeouts.
	DefaultRetryBase = time.Second
	DefaultRetryMax  = 30 * time.Second
	MaxRetry         = time.Hour
	MaxRetries       = 1000
	MaxTimeout       = time.Minute
	maxCache         = 100_000
	maxKeys          = 100
	maxSet           = 1 << 20
	maxLocations     = 8
)

// Validate calls add for every mistake, with the field as written in YAML.
func (p *Provider) Validate(add func(field, problem string)) {
	if p.Name == "" {
		add("name", "is missing; rules name a provider by it")
	}
	if p.Issuer == "" {
		add("issuer", "is missing; write what the claim iss of the provider's tokens is")
	}
	k := &p.Keys
	switch n := given(k.Inline, k.File, k.URL); {
	case n != 1:
		add("keys", fmt.Sprintf("%d places of keys are given; write one of inline, file and url", n))
	case k.Inline != "":
		if _, err := parseKeys([]byte(k.Inline)); err != nil {
			add("keys.inline", err.Error())
		}
	case k.URL != "":
		if u, err := url.Parse(k.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
			add("keys.url", fmt.Sprintf("%q is not an address such as https://issuer.example.org/jwks.json", k.URL))
		}
	}
	k.times(add)
	if len(p.Locations) > maxLocations {
		add("locations", fmt.Sprintf("are %d; at most %d are possible", len(p.Locations), maxLocations))
	}
	for i, l := range p.Locations {
		at := fmt.Sprintf("locations[%d]", i)
		switch {
		case given(l.Header, l.Query, l.Cookie) != 1:
			add(at, "names several places, or none; write one of header, query and cookie")
		case l.Header != "" && !http1.IsToken(l.Header):
			add(at+".header", fmt.Sprintf("%q is not the name of a field", l.Header))
		case l.Header == "" && (l.Prefix != "" || l.Forward):
			add(at, "prefix and forward concern a header only")
		}
	}
	if p.ForwardPayload != "" && !http1.IsToken(p.ForwardPayload) || http1.HopByHop(http1.FieldOf(p.ForwardPayload)) {
		add("forward_payload", fmt.Sprintf("%q is not the name of a field that can be passed on", p.ForwardPayload))
	}
	if p.ClockSkew < 0 || p.ClockSkew > time.Hour {
		add("clock_skew", "is out of range; write up to 1h")
	}
	if p.Cache < 0 || p.Cache > maxCache {
		add("cache", fmt.Sprintf("is out of range; write up to %d", maxCache))
	}
}

// times checks how keys are fetched.
func (k *Keys) times(add func(field, problem string)) {
	if k.Timeout < 0 || k.Timeout > MaxTimeout {
		add("keys.timeout", "is out of range; write 1ms to 1m")
	}
	if k.ConnectTimeout < 0 || k.ConnectTimeout > MaxTimeout {
		add("keys.connect_timeout", "is out of range; write 1ms to 1m")
	}
	if k.Refresh < 0 || k.Refresh > 0 && k.Refresh < time.Second {
		add("keys.refresh", "is too short; write 1s or more")
	}
	base, most := k.RetryPauses()
	switch {
	case k.RetryBase < 0 || k.RetryBase > MaxRetry:
		add("keys.retry_base", "is out of range; write 1ms to 1h")
	case k.RetryMax < 0 || k.RetryMax > MaxRetry:
		add("keys.retry_max", "is out of range; write 1ms to 1h")
	case most < base:
		add("keys.retry_max", fmt.Sprintf("is %s, less than retry_base, which is %s; write the longest pause there may be", most, base))
	}
	if k.RetryTimes < 0 || k.RetryTimes > MaxRetries {
		add("keys.retry_times", fmt.Sprintf("is out of range; write up to %d", MaxRetries))
	}
}

// RetryPauses are the first and the longest pause after failures.
func (k *Keys) RetryPauses() (base, most time.Duration) {
	return cmp.Or(k.RetryBase, DefaultRetryBase), cmp.Or(k.RetryMax, DefaultRetryMax)
}

func given(all ...string) (n int) {
	for _, s := range all {
		if s != "" {
			n++
		}
	}
	return n
}

// place is a compiled Location.
type place struct {
	id            http1.FieldID // of a header
	name          string        // in lower case for a header
	prefix        string        // in lower case
	header, query bool
	forward       bool
}

func places(list []Location) (all []place) {
	if len(list) == 0 {
		list = []Location{{Header: "Authorization", Prefix: "Bearer "}, {Query: "access_token"}}
	}
	for _, l := range list {
		switch {
		case l.Header != "":
			all = append(all, place{id: http1.FieldOf(l.Header), name: strings.ToLower(l.Header), prefix: strings.ToLower(l.Prefix), header: true, forward: l.Forward})
		case l.Query != "":
			all = append(all, place{name: l.Query, query: true})
		default:
			all = append(all, place{name: l.Cookie})
		}
	}
	return all
}
