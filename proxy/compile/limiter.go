package compile

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/proxy/limiter"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
)

// rateLimiters prepares those who count rate limits for several proxies.
func (c *compiler) rateLimiters() {
	if r := c.cfg.RateLimiters.Redis; r != nil {
		own := *r
		c.draft.counting.Redis = &own
		c.draft.counting.RedisTLS, c.draft.counting.RedisKey = c.limiterTLS("rate_limiters.redis", &limiterLink{
			address: r.Address, transport: r.Transport, identities: r.Identities, ca: r.CA, serverName: r.ServerName,
		})
	}
	if g := c.cfg.RateLimiters.GRPC; g != nil {
		own := *g
		c.draft.counting.GRPC = &own
		c.draft.counting.GRPCTLS, c.draft.counting.GRPCKey = c.limiterTLS("rate_limiters.grpc", &limiterLink{
			address: g.Address, transport: g.Transport, identities: g.Identities, ca: g.CA, serverName: g.ServerName, protocols: []string{alpnHTTP2},
		})
	}
}

// limiterLink is what the connections to all who count have in common.
type limiterLink struct {
	address    string
	transport  limiter.Transport
	identities []string
	ca         string
	serverName string
	protocols  []string
}

// limiterTLS returns the TLS configuration of connections to one who counts, nil
// for plaintext, and a text that is equal for two that do the same.
func (c *compiler) limiterTLS(path string, l *limiterLink) (t *tls.Config, key string) {
	switch l.transport {
	case limiter.MTLS:
		if c.in.Source == nil {
			c.problem(path+".transport", "is mtls, which needs an identity; give one under identity, or write transport: plaintext")
			return nil, ""
		}
		out := tlsOf(&c.cfg.Identity.TLS.Outgoing)
		o := mtls.ClientOptions{MinVersion: out.min, MaxVersion: out.max, CipherSuites: out.suites, NextProtos: l.protocols}
		for _, text := range l.identities {
			id, err := mtls.ParseID(text)
			if err != nil {
				c.problem(path+".identities", "%v", err)
				return nil, ""
			}
			o.Expected = append(o.Expected, id)
		}
		return mtls.ClientConfig(c.in.Source, o), strings.Join(append([]string{"mtls", out.words}, l.identities...), " ")
	case limiter.TLS:
		t = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: l.serverName, NextProtos: l.protocols}
		if t.ServerName == "" {
			t.ServerName, _, _ = net.SplitHostPort(l.address)
		}
		key = "tls " + t.ServerName
		if l.ca != "" {
			pem, err := os.ReadFile(l.ca)
			if err != nil {
				c.problem(path+".ca", "cannot be read: %v", err)
				return nil, ""
			}
			t.RootCAs = x509.NewCertPool()
			if !t.RootCAs.AppendCertsFromPEM(pem) {
				c.problem(path+".ca", "has no certificate in PEM")
				return nil, ""
			}
			key += fmt.Sprintf(" %x", sha256.Sum256(pem))
		}
		return t, key
	}
	return nil, "plaintext"
}

// entryNames are the names of the entries that stand for a key where no descriptor is
// written; those of Envoy where it has one.
var entryNames = map[config.RateKey]string{
	config.RateKeyNone: "generic_key", config.RateKeyIdentity: "identity", config.RateKeySourceIP: "remote_address",
	config.RateKeyRoute: "route", config.RateKeyPath: "path", config.RateKeyMethod: "method",
}

// buckets are what a Redis is told of a limit and its requests. Proxies share the
// buckets of limits with one name on the same side of one service.
func buckets(r *config.RateLimit, name string) ([]plan.RateEntry, *limiter.Limit) {
	l := &limiter.Limit{Name: name, Rate: r.Rate, Lease: r.Lease, Keys: r.MaxKeys, Entries: []string{string(r.Key)}}
	if r.Key == config.RateKeyNone {
		l.Keys = 1
	}
	if r.Key == config.RateKeyHeader {
		l.Entries[0] = strings.ToLower(r.Header)
	}
	return []plan.RateEntry{{Kind: rateKeys[r.Key], Field: strings.ToLower(r.Header)}}, l
}

// entries are what a rate limit service is told of a request.
func entries(r *config.RateLimit) ([]plan.RateEntry, *limiter.Limit) {
	list := r.Descriptor
	if len(list) == 0 {
		e := config.RateEntry{Key: entryNames[r.Key], From: r.Key, Header: r.Header}
		switch r.Key {
		case config.RateKeyNone:
			e.Value = r.Name
		case config.RateKeyHeader:
			e.Key = strings.ToLower(r.Header)
		}
		list = []config.RateEntry{e}
	}
	l := &limiter.Limit{Name: r.Name, Rate: r.Rate, Hits: uint32(r.Hits)}
	told := make([]plan.RateEntry, len(list))
	for i := range list {
		e := &list[i]
		told[i] = plan.RateEntry{Kind: rateKeys[e.From], Field: strings.ToLower(e.Header), Value: []byte(e.Value)}
		l.Entries = append(l.Entries, e.Key)
	}
	return told, l
}
