package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/origin"
)

const upgradeKey = "dGhlIHNhbXBsZSBub25jZQ=="

const upgradeRequest = "GET /chat HTTP/1.1\r\n" +
	"Host: shop.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Origin: https://shop.example.com\r\n" +
	"Connection: Upgrade\r\n" +
	"Upgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: " + upgradeKey + "\r\n" +
	"\r\n"

var errEcho = errors.New("the message that came back is not the one that was sent")

// webSocket sends one masked message (RFC 6455) and waits until it is back.
type webSocket struct {
	load     *sessions
	message  []byte // the frame to send
	reply    []byte // the frame to come back
	in       []byte // of the upgrade's head, or of the reply
	upgraded bool
	waits    bool
	start    time.Duration
}

func newWebSocket(l *sessions) *webSocket {
	w := &webSocket{load: l}
	n := l.cfg.Message
	payload := bytes.Repeat([]byte("outrigger "), n/10+1)[:n]
	head := func(mask byte) []byte {
		b := []byte{0x82} // FIN, binary
		if n < 126 {
			return append(b, mask|byte(n))
		}
		return binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	}
	w.reply = append(head(0), payload...)
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	w.message = append(head(0x80), mask[:]...)
	for i, b := range payload {
		w.message = append(w.message, b^mask[i&3])
	}
	return w
}

func (w *webSocket) open(out []byte) ([]byte, error) {
	w.waits = true
	return append(out, upgradeRequest...), nil
}

func (w *webSocket) feed(in, out []byte) ([]byte, error) {
	if !w.waits {
		return out, errTwoHeads
	}
	w.in = append(w.in, in...)
	if !w.upgraded {
		end := bytes.Index(w.in, []byte("\r\n\r\n"))
		if end < 0 {
			if len(w.in) > maxHead {
				return out, errLongHead
			}
			return out, nil
		}
		head := w.in[:end+2]
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
			line, _, _ := bytes.Cut(head, []byte("\r\n"))
			return out, fmt.Errorf("the upgrade is answered with %q", line)
		}
		if want := "sec-websocket-accept: " + origin.AcceptKey(upgradeKey) + "\r\n"; !containsFold(head, want) {
			return out, errors.New("the upgrade's answer has no right Sec-WebSocket-Accept")
		}
		if len(w.in) > end+4 {
			return out, errTwoHeads
		}
		w.upgraded = true
		return w.next(out), nil
	}
	if len(w.in) < len(w.reply) {
		return out, nil
	}
	if !bytes.Equal(w.in, w.reply) {
		return out, errEcho
	}
	w.load.answered(w.start)
	return w.next(out), nil
}

func (w *webSocket) next(out []byte) []byte {
	w.in = w.in[:0]
	w.waits = !w.load.ending
	if !w.waits {
		return out
	}
	w.start = w.load.readAt
	return append(out, w.message...)
}

func containsFold(head []byte, line string) bool {
	for l := range bytes.SplitAfterSeq(head, []byte("\r\n")) {
		// Accept keys differ in case, but not two of them in case only.
		if bytes.EqualFold(l, []byte(line)) {
			return true
		}
	}
	return false
}

func (w *webSocket) busy() int {
	if w.waits {
		return 1
	}
	return 0
}

func (w *webSocket) over() bool { return false }
