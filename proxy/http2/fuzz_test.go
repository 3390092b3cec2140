package http2

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// frames makes bytes of frames.
func frames(list ...[]byte) []byte { return bytes.Join(list, nil) }

func rawFrame(kind, flags uint8, id uint32, payload string) []byte {
	return append(appendFrameHead(nil, len(payload), kind, flags, id), payload...)
}

func seedFrames() [][]byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	block := func(list ...string) string {
		b.Reset()
		for i := 0; i < len(list); i += 2 {
			_ = e.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]})
		}
		return b.String()
	}
	post := block(":method", "POST", ":scheme", "http", ":path", "/", ":authority", "h")
	return [][]byte{
		frames(rawFrame(frameHeaders, 5, 1, post)),
		frames(rawFrame(frameHeaders, 4, 1, post), rawFrame(frameData, 0, 1, "abc"), rawFrame(frameData, 8, 1, "\x02abc\x00\x00"), rawFrame(frameHeaders, 5, 1, block("x", "y"))),
		frames(rawFrame(frameHeaders, 0, 1, post[:3]), rawFrame(frameContinuation, 4, 1, post[3:]), rawFrame(frameReset, 0, 1, "\x00\x00\x00\x08")),
		frames(rawFrame(frameHeaders, 0x2d, 3, "\x02\x00\x00\x00\x00\x10"+post+"\x00\x00"), rawFrame(framePriority, 0, 5, "\x00\x00\x00\x00\x10")),
		frames(rawFrame(frameSettings, 0, 0, "\x00\x04\x00\x00\x00\x05\x00\x01\x00\x00\x00\x00"), rawFrame(frameHeaders, 5, 1, post), rawFrame(frameWindowUpdate, 0, 1, "\x00\x00\x00\x09")),
		frames(rawFrame(framePing, 0, 0, "12345678"), rawFrame(frameGoAway, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x00bye"), rawFrame(0x42, 9, 7, "?")),
		frames(rawFrame(frameHeaders, 4, 1, block(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "h")), rawFrame(frameData, 1, 1, "hi")),
		frames(rawFrame(frameWindowUpdate, 0, 0, "\x7f\xff\xff\xff"), rawFrame(frameWindowUpdate, 0, 0, "\x7f\xff\xff\xff")),
		[]byte("\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
		frames(rawFrame(frameSettings, 1, 0, ""), rawFrame(framePushPromise, 4, 1, "\x00\x00\x00\x02")),
	}
}

// pair returns a connection of the code under test and the socket at its far end.
// Each is on a loopback address of its own, for the ports of one are used up by
// those that a fuzzer has closed.
func pair(t testing.TB) (*wire.Conn, *net.TCPConn) {
	ln, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250)))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.New(near.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = far.SetDeadline(time.Now().Add(patience))
	return c, far.(*net.TCPConn)
}

// afterwards checks that nothing is left of a connection that has ended.
func afterwards(t *testing.T, c *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) != 0 || c.open != 0 || c.running != 0 || c.buffered != 0 || c.ready.front != nil || c.pend != nil || c.spare != nil {
		t.Errorf("left: %d streams, %d open, %d running, %d bytes buffered, %v queued, %d pending", len(c.streams), c.open, c.running, c.buffered, c.ready.front != nil, len(c.pend))
	}
}

// FuzzFrames gives a server anything at all behind the preface. It must come to
// an end, with nothing left.
func FuzzFrames(f *testing.F) {
	for _, b := range seedFrames() {
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, greet bool) {
		c, far := pair(t)
		defer far.Close()
		s := NewServer(c, &Config{ExtendedConnect: true, FloodFrames: 50, HeaderBytes: 4000, Window: 1000}, echo)
		done := make(chan error, 1)
		go func() {
			done <- s.Serve()
			_ = c.Close()
		}()
		if greet {
			b = append(append([]byte(preface), rawFrame(frameSettings, 0, 0, "")...), b...)
		}
		go func() {
			_, _ = far.Write(b)
			_ = far.CloseWrite()
		}()
		_, _ = io.Copy(io.Discard, far)
		select {
		case <-done:
		case <-time.After(patience):
			panic("the server hangs")
		}
		afterwards(t, s.c)
	})
}

// FuzzClientFrames gives a client with streams under way anything at all.
func FuzzClientFrames(f *testing.F) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	_ = e.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	f.Add(frames(rawFrame(frameHeaders, 4, 1, b.String()), rawFrame(frameData, 1, 1, "abc")))
	f.Add(frames(rawFrame(frameHeaders, 4, 3, b.String()), rawFrame(frameHeaders, 5, 3, ""), rawFrame(frameReset, 0, 1, "\x00\x00\x00\x07")))
	for _, b := range seedFrames() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, far := pair(t)
		defer far.Close()
		k := NewClient(c, &Config{FloodFrames: 50, HeaderBytes: 4000})
		done := make(chan error, 3)
		go func() {
			done <- k.Run()
			_ = c.Close()
		}()
		for range 2 {
			go func() {
				_, err := roundTrip(k, "POST / HTTP/1.1\r\nhost: h\r\n\r\n", "some body", "")
				done <- err
			}()
		}
		go func() {
			_, _ = far.Write(append(rawFrame(frameSettings, 0, 0, ""), b...))
			_ = far.CloseWrite()
		}()
		_, _ = io.Copy(io.Discard, far)
		for range 3 {
			select {
			case <-done:
			case <-time.After(patience):
				panic("the client hangs")
			}
		}
		afterwards(t, k.c)
	})
}
