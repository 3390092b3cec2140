package exchange_test

import (
	"strings"
	"testing"
)

// TestClientCertForwarded: what came stays in front of the caller's own element where that is asked for, however it
// was spread over fields, and an element of kilobytes has room.
func TestClientCertForwarded(t *testing.T) {
	long := "By=" + proxyID + ";Cert=\"" + strings.Repeat("%2B", 2000) + "\""
	for _, c := range []struct {
		name, came, cert, want string
	}{
		{"two fields", "x-forwarded-client-cert: URI=a\r\nX-Forwarded-Client-Cert: URI=b;Hash=1,URI=c\r\n", "By=me", "URI=a,URI=b;Hash=1,URI=c,By=me"},
		{"nothing came", "", "By=me", "By=me"},
		{"empty field", "x-forwarded-client-cert:\r\n", "By=me", "By=me"},
		{"none of its own", "x-forwarded-client-cert: URI=a\r\n", "", "URI=a"},
		{"neither", "", "", ""},
		{"kilobytes", "x-forwarded-client-cert: URI=a\r\n", long, "URI=a," + long},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, mtlsDown, func(s *setup) { s.keepCert, s.cert = true, []byte(c.cert) })
			heads := make(chan string, 1)
			b.start(func(o *originConn) {
				for {
					head, _, ok := o.message()
					if !ok {
						return
					}
					heads <- head
					o.send(okResponse)
				}
			})
			conn := b.dial()
			for range 2 {
				conn.send("GET / HTTP/1.1\r\nHost: a\r\n" + c.came + "\r\n")
				head := <-heads
				conn.expect(okResponse)
				got := ""
				for line := range strings.SplitSeq(head, "\r\n") {
					if name, value, _ := strings.Cut(line, ": "); strings.EqualFold(name, "x-forwarded-client-cert") {
						got += value
					}
				}
				if got != c.want || strings.Count(strings.ToLower(head), "x-forwarded-client-cert") > 1 {
					t.Errorf("got %q\nwant %q in\n%s", got, c.want, head)
				}
			}
		})
	}
}
