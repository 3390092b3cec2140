package proxy

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// identityFiles is an identity section with an SVID of id by ca.
func identityFiles(ca *testkit.CA, id string) string {
	return fmt.Sprintf(`{files: {cert: "%[1]s/cert.pem", key: "%[1]s/key.pem", bundle: "%[1]s/bundle.pem"}}`, ca.Files(id))
}

// A caller without mTLS is on the page for the operator who is about to make
// the listener strict.
func TestPlaintextCallersAreListed(t *testing.T) {
	in := address(t)
	_, port, err := net.SplitHostPort(address(t))
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, fmt.Sprintf("service: {name: api, port: %s}\nidentity: %s\ninbound: {listen: \"%s\", mtls: permissive}\n"+
		"admin: {listen: \"\"}\ntelemetry: {access_log: {path: \"off\"}}\ndrain: {delay: 0s, timeout: 1s}\n",
		port, identityFiles(testkit.NewCA(t), "spiffe://example.test/api"), in))
	if v := r.viewPlaintext(); len(v) != 0 {
		t.Errorf("before any caller: %v", v)
	}
	start := time.Now()
	for n := range uint64(2) {
		c, err := net.Dial("tcp", in)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		soon(t, "the caller is listed", func() bool {
			v := r.viewPlaintext()
			return len(v) == 1 && v[0].Connections == n+1
		})
	}
	v := r.viewPlaintext()[0]
	if v.Listener != "inbound" || v.Address != "127.0.0.1" || v.Last.Before(start) {
		t.Errorf("listed as %+v", v)
	}
}
