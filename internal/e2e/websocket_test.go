package e2e

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// webSocketApp accepts WebSockets (RFC 6455) and echoes frames. After a close
// frame it sends one more text and then ends its side.
func webSocketApp() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			http.Error(w, "upgrade to websocket", http.StatusUpgradeRequired)
			return
		}
		sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
		_ = rw.Flush()
		for {
			op, text, err := readFrame(rw.Reader)
			if err != nil {
				// The client has ended its side only: what is said now arrives.
				_ = writeFrame(c, 1, []byte("goodbye"), false)
				return
			}
			if writeFrame(c, op, text, false) != nil {
				return
			}
		}
	})
}

func readFrame(r *bufio.Reader) (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(head[1] & 0x7f)
	if n == 126 {
		var long [2]byte
		if _, err := io.ReadFull(r, long[:]); err != nil {
			return 0, nil, err
		}
		n = int(binary.BigEndian.Uint16(long[:]))
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(r, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, payload, nil
}

func writeFrame(w io.Writer, op byte, payload []byte, masked bool) error {
	b := []byte{0x80 | op}
	bit, mask := byte(0), [4]byte{}
	if masked {
		bit, mask = 0x80, [4]byte{1, 2, 3, 4}
	}
	if len(payload) < 126 {
		b = append(b, bit|byte(len(payload)))
	} else {
		b = append(b, bit|126)
		b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	}
	if masked {
		b = append(b, mask[:]...)
	}
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	_, err := w.Write(b)
	return err
}

// A WebSocket goes through both sidecars, both ways, and each side may end its
// half on its own.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p := m.pair(serve(t, webSocketApp()), nil, nil)
	c, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	// The first frame comes together with the request.
	if _, err := fmt.Fprintf(c, "GET /chat HTTP/1.1\r\nHost: api\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", key); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("answer: %d %v", resp.StatusCode, resp.Header)
	}
	for i := range 50 {
		text := fmt.Appendf(nil, "message %d %s", i, make([]byte, i*200))
		if err := writeFrame(c, 2, text, true); err != nil {
			t.Fatal(err)
		}
		op, got, err := readFrame(r)
		if err != nil || op != 2 || string(got) != string(text) {
			t.Fatalf("message %d: %d bytes of kind %d came back, %v", i, len(got), op, err)
		}
	}
	if _, body := p.web.get("/connections"); !hasLine(body, "busy") {
		t.Errorf("the connection is not shown as busy:\n%s", body)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, got, err := readFrame(r); err != nil || string(got) != "goodbye" {
		t.Errorf("after the client has ended its side: %q, %v", got, err)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for _, s := range []*sidecar{p.web, p.api} {
		if r := s.recorded("the upgrade", func(r *record) bool { return r.Path == "/chat" }); r.Status != 101 || r.Flag != "-" {
			t.Errorf("%s: %+v", s.name, r)
		}
	}
	// A request that the application does not upgrade is an ordinary one.
	if resp, _ := fetch(t, http.MethodGet, p.call+"/chat", nil); resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("without Upgrade: %d", resp.StatusCode)
	}
}
