package http2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

func TestFloods(t *testing.T) {
	const limit = 50
	word := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	id := uint32(1)
	for _, x := range []struct {
		kind Flood
		send func(p *peer) error
	}{
		{FloodReset, func(p *peer) error {
			id += 2
			_ = p.trySend(frameHeaders, flagEndHeaders, id, p.block(":method: POST", ":scheme: http", ":path: /", ":authority: h"))
			return p.trySend(frameReset, 0, id, word(uint32(Cancel)))
		}},
		{FloodReset, func(p *peer) error { // requests that the server has to reset
			id += 2
			return p.trySend(frameHeaders, flagEndHeaders, id, p.block(":method: POST", ":scheme: http", ":path: ", ":authority: h"))
		}},
		{FloodSettings, func(p *peer) error { return p.trySend(frameSettings, 0, 0, nil) }},
		{FloodPing, func(p *peer) error { return p.trySend(framePing, 0, 0, make([]byte, 8)) }},
		{FloodEmptyData, func(p *peer) error { return p.trySend(frameData, 0, 1, nil) }},
		{FloodEmptyData, func(p *peer) error { return p.trySend(frameData, flagPadded, 1, []byte{3, 0, 0, 0}) }},
		{FloodWindow, func(p *peer) error { return p.trySend(frameWindowUpdate, 0, 0, word(1)) }},
		{FloodWindow, func(p *peer) error { return p.trySend(frameWindowUpdate, 0, 1, word(1)) }},
		{FloodPriority, func(p *peer) error { return p.trySend(framePriority, 0, 1, make([]byte, 5)) }},
		{FloodPriority, func(p *peer) error { return p.trySend(0x77, 0, 1, make([]byte, 5)) }},
		{FloodContinuation, func(p *peer) error {
			if id != 0 {
				id = 0
				return p.trySend(frameHeaders, 0, 3, p.block(":method: POST", ":scheme: http", ":path: /", ":authority: h"))
			}
			return p.trySend(frameContinuation, 0, 3, []byte{0x82})
		}},
		{FloodContinuation, func(p *peer) error { // empty ones
			if id != 0 {
				id = 0
				return p.trySend(frameHeaders, 0, 3, p.block(":method: POST", ":scheme: http", ":path: /", ":authority: h"))
			}
			return p.trySend(frameContinuation, 0, 3, nil)
		}},
		{FloodHeaders, func(p *peer) error { // a large section, piece by piece
			if id != 0 {
				id = 0
				return p.trySend(frameHeaders, 0, 3, nil)
			}
			return p.trySend(frameContinuation, 0, 3, make([]byte, 10_000))
		}},
		{FloodHeaders, func(p *peer) error { // a bomb: one entry of the table, many times
			b := append(p.block("x: "+strings.Repeat("y", 3000)), bytes.Repeat([]byte{0xbe}, 10_000)...)
			return p.trySend(frameHeaders, flagEndHeaders|flagEndStream, 3, b)
		}},
	} {
		t.Run(x.kind.String(), func(t *testing.T) {
			var struck atomic.Uint32
			struck.Store(uint32(Floods))
			cfg := &Config{FloodFrames: limit, OnFlood: func(k Flood, _ netip.AddrPort) { struck.Store(uint32(k)) }}
			v := serve(t, nil, cfg, func(s *Stream) { _, _ = s.Peek() })
			p := asClient(t, v)
			id = 1
			p.post(1)
			n := 0
			for ; n < 10*limit; n++ {
				if x.send(p) != nil {
					break
				}
			}
			if last, code := p.expectGoAway(); code != EnhanceYourCalm {
				t.Errorf("GOAWAY %d %s", last, code)
			}
			p.expectEnd()
			if k := Flood(struck.Load()); k != x.kind {
				t.Errorf("%s struck", k)
			}
		})
	}
}

// A client that works may reset, update windows and ping as much as it likes.
func TestRealWorkIsNoFlood(t *testing.T) {
	cfg := &Config{FloodFrames: 20, OnFlood: func(k Flood, _ netip.AddrPort) { t.Error(k) }}
	v := serve(t, nil, cfg, answerWith(4000))
	p := asClient(t, v)
	for i := range uint32(200) {
		id := 1 + 2*i
		p.get(id)
		p.body(id, 4000)
		p.sendWord(frameWindowUpdate, 0, 2000)
		p.sendWord(frameWindowUpdate, 0, 2000)
		p.send(framePriority, 0, id, make([]byte, 5))
		if i%2 == 1 {
			p.sendWord(frameReset, id, uint32(NoError))
		}
		p.sync()
	}
}

// Answers that the peer does not read are bounded by ending the connection.
func TestAnswersNobodyReads(t *testing.T) {
	c := detached(false)
	w, far := pair(t)
	defer far.Close()
	defer w.Close()
	c.w = w
	c.credit[FloodPing] = 1 << 30
	struck := Floods
	c.cfg.OnFlood = func(k Flood, _ netip.AddrPort) { struck = k }
	ping := appendPing(nil, 0, 1)
	var err error
	for n := 0; err == nil && n < 100_000; n++ {
		err = c.feed(ping)
	}
	if struck != FloodPending || err == nil || len(c.pend) > wire.Large+answerBytes {
		t.Errorf("%s, %v, %d bytes pending", struck, err, len(c.pend))
	}
}

func TestTooManyStreamsAreRefused(t *testing.T) {
	block := make(chan struct{})
	v := serve(t, nil, &Config{Streams: 2}, func(s *Stream) {
		<-block
		answerWith(1)(s)
	})
	p := asClient(t, v)
	p.get(1)
	p.get(3)
	p.get(5)
	if g := p.expect(frameReset, 5); Code(g.word()) != RefusedStream {
		t.Errorf("%s", Code(g.word()))
	}
	close(block)
	for served := uint32(0); served != 1+3; {
		if g, err := p.next(); err != nil {
			t.Fatal(err)
		} else if g.kind == frameData {
			served += g.id
		}
	}
	p.get(7)
	p.expect(frameData, 7)
}

func TestTheClientKeepsToThePeersLimit(t *testing.T) {
	k, p, _ := asServer(t, nil, settingMaxStreams, 1)
	eventually(t, func() bool { return k.Limit() == 1 })
	s, err := k.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Open(); err != ErrTooManyStreams || !Unsent(err) || k.CanOpen() {
		t.Errorf("%v", err)
	}
	s.Close()
	if !k.CanOpen() {
		t.Error("still none")
	}
	p.settings(settingMaxStreams, 0)
	eventually(t, func() bool { return !k.CanOpen() })
}

const getHead = "GET / HTTP/1.1\r\nhost: h\r\n\r\n"

// start opens a stream and sends a GET.
func start(t testing.TB, k *Client) *Stream {
	t.Helper()
	s, err := k.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WriteRequest([]byte(getHead), nil, End); err != nil {
		t.Fatal(err)
	}
	return s
}

func goAway(last uint32, code Code) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, last), uint32(code))
}

func TestGoAwayToTheClient(t *testing.T) {
	var ended atomic.Int32
	k, p, errs := asServer(t, &Config{OnEnd: func(error) { ended.Add(1) }})
	one, two := start(t, k), start(t, k)
	reserved, err := k.Open()
	if err != nil {
		t.Fatal(err)
	}
	p.expect(frameHeaders, 3)
	p.send(frameGoAway, 0, 0, goAway(1, NoError))
	err = two.ReadHead()
	var e *Error
	if !errors.As(err, &e) || !e.Unsent || !Unsent(err) {
		t.Errorf("beyond the last stream: %v", err)
	}
	if err := reserved.WriteRequest([]byte(getHead), nil, End); !Unsent(err) {
		t.Errorf("reserved before: %v", err)
	}
	if _, err := k.Open(); err != ErrGoingAway || !Unsent(err) {
		t.Errorf("open: %v", err)
	}
	eventually(t, func() bool { return ended.Load() == 1 })
	p.headers(1, true, ":status: 200")
	if err := one.ReadHead(); err != nil || !one.Ended {
		t.Errorf("within: %v", err)
	}
	for _, s := range []*Stream{one, two, reserved} {
		s.Close()
	}
	if err := <-errs; err != nil {
		t.Errorf("Run: %v", err)
	}
	if ended.Load() != 1 {
		t.Errorf("OnEnd was called %d times", ended.Load())
	}
}

func TestRefusedStreamIsUnsent(t *testing.T) {
	k, p, _ := asServer(t, nil)
	for code, unsent := range map[Code]bool{RefusedStream: true, Cancel: false, InternalError: false} {
		s := start(t, k)
		p.sendWord(frameReset, s.ID(), uint32(code))
		err := s.ReadHead()
		var e *Error
		if !errors.As(err, &e) || e.Code != code || !e.Remote || Unsent(err) != unsent {
			t.Errorf("%s: %v, unsent %v", code, err, Unsent(err))
		}
		s.Close()
	}
}

// What was written may have been processed; what waits to be written was not.
func TestACutConnection(t *testing.T) {
	k, p, errs := asServer(t, nil)
	var list []*Stream
	for range 50 {
		list = append(list, start(t, k))
	}
	p.expect(frameHeaders, 99)
	p.Close()
	for _, s := range list {
		if err := s.ReadHead(); err == nil || Unsent(err) {
			t.Errorf("%v, unsent %v", err, Unsent(err))
		}
		s.Close()
	}
	<-errs
	if _, err := k.Open(); err != ErrClosed {
		t.Errorf("%v", err)
	}

	c := detached(true)
	s := c.newStream()
	c.open++
	if err := s.WriteRequest([]byte(getHead), nil, 0); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.failLocked(&Error{Remote: true, Cause: io.EOF})
	c.mu.Unlock()
	if err := s.ReadHead(); !Unsent(err) {
		t.Errorf("pending: %v", err)
	}
}

// A response that came whole counts, even if the rest of the request is refused.
func TestAResponseBeforeTheRequestsEnd(t *testing.T) {
	v := serve(t, nil, nil, func(s *Stream) {
		_ = s.WriteResponse([]byte("HTTP/1.1 413 \r\n\r\n"), []byte("too large"), End)
	})
	k := dial(t, v.addr, nil, nil)
	s, err := k.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.WriteRequest([]byte("POST / HTTP/1.1\r\nhost: h\r\n\r\n"), []byte("begin"), 0); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = s.Write(make([]byte, 10_000), 0)
	}
	if err := s.ReadHead(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(reader{s}); err != nil || string(b) != "too large" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestDrainInTwoPhases(t *testing.T) {
	block := make(chan struct{})
	v := serve(t, nil, nil, func(s *Stream) {
		<-block
		answerWith(1)(s)
	})
	p := asClient(t, v)
	p.get(1)
	p.sync()
	server := v.all()[0]
	if !server.Busy() || server.CloseIdle() {
		t.Error("a busy connection passes for idle")
	}
	server.Drain()
	if last, code := p.expectGoAway(); last != maxStreamID || code != NoError {
		t.Errorf("GOAWAY %d %s", last, code)
	}
	ping := p.expect(framePing, 0)
	p.get(3) // crossed the first GOAWAY, and is served
	p.send(framePing, flagAck, 0, ping.payload)
	if last, code := p.expectGoAway(); last != 3 || code != NoError {
		t.Errorf("GOAWAY %d %s", last, code)
	}
	p.get(5) // too late
	p.sync()
	close(block)
	for range 2 {
		for {
			g, err := p.next()
			if err != nil {
				t.Fatal(err)
			}
			if g.id == 5 {
				t.Error("a stream beyond the last one was served")
			}
			if g.kind == frameData {
				break
			}
		}
	}
	p.expectEnd()
	eventually(t, func() bool { v.mu.Lock(); defer v.mu.Unlock(); return len(v.errs) == 1 })
	if v.errs[0] != nil {
		t.Errorf("Serve: %v", v.errs[0])
	}
}

func TestCloseIdle(t *testing.T) {
	idle := make(chan struct{}, 1)
	k, p, errs := asServer(t, &Config{OnIdle: func() { idle <- struct{}{} }})
	s := start(t, k)
	if k.CloseIdle() {
		t.Fatal("closed with a stream")
	}
	p.headers(1, true, ":status: 200")
	if err := s.ReadHead(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	<-idle
	if !k.CloseIdle() {
		t.Fatal("not closed")
	}
	if err := <-errs; err != nil {
		t.Error(err)
	}
	p.expectGoAway()
}

// notified counts calls.
type notified struct{ n atomic.Int32 }

func (c *notified) Canceled() { c.n.Add(1) }

func TestNotify(t *testing.T) {
	var seen notified
	entered, left := make(chan struct{}, 9), make(chan error, 9)
	v := serve(t, nil, nil, func(s *Stream) {
		s.Notify(&seen)
		entered <- struct{}{}
		before := seen.n.Load()
		_, err := s.Peek()
		eventually(t, func() bool { return seen.n.Load() > before })
		left <- err
	})
	p := asClient(t, v)
	p.post(1)
	<-entered
	p.sendWord(frameReset, 1, uint32(Cancel))
	var e *Error
	if err := <-left; !errors.As(err, &e) || e.Code != Cancel || !e.Remote || e.Conn {
		t.Errorf("%v", err)
	}
	eventually(t, func() bool { return seen.n.Load() == 1 })
	p.post(3)
	<-entered
	p.Close()
	if err := <-left; !errors.As(err, &e) || !e.Conn {
		t.Errorf("%v", err)
	}
	eventually(t, func() bool { return seen.n.Load() == 2 })
}

func TestDeadlines(t *testing.T) {
	var now atomic.Int64
	sw := NewSweeper(func() time.Duration { return time.Duration(now.Load()) })
	var seen notified
	k, p, _ := asServer(t, &Config{Sweeper: sw})
	s, other := start(t, k), start(t, k)
	defer other.Close()
	s.Notify(&seen)
	s.SetDeadline(time.Second)
	at := func(d time.Duration) {
		now.Store(int64(d))
		sw.Sweep(d)
	}
	at(time.Second)
	if s.Expired() {
		t.Error("early")
	}
	at(time.Second + 1)
	if err := s.ReadHead(); !errors.Is(err, ErrExpired) || !s.Expired() || seen.n.Load() != 1 || s.SetDeadline(0) {
		t.Errorf("%v, %v, %d", err, s.Expired(), seen.n.Load())
	}
	if err := s.Write(nil, End); err == nil {
		t.Error("written")
	}
	s.Close()
	if g := p.expect(frameReset, 1); Code(g.word()) != Cancel {
		t.Errorf("%s", Code(g.word()))
	}
	p.headers(3, true, ":status: 200")
	if err := other.ReadHead(); err != nil {
		t.Error(err)
	}
}

func TestExpiryEndsAWrite(t *testing.T) {
	k, p, _ := asServer(t, nil)
	s, err := k.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	done := make(chan error, 1)
	go func() {
		done <- s.WriteRequest([]byte("POST / HTTP/1.1\r\nhost: h\r\n\r\n"), make([]byte, 1<<20), End)
	}()
	p.body(1, initialWindow)
	s.Expire()
	if err := <-done; !errors.Is(err, ErrExpired) {
		t.Errorf("%v", err)
	}
}

func TestAPeerThatSaysNothing(t *testing.T) {
	var now atomic.Int64
	sw := NewSweeper(func() time.Duration { return time.Duration(now.Load()) })
	k, p, errs := asServer(t, &Config{Sweeper: sw, PingAfter: 10 * time.Second, PingTimeout: 5 * time.Second})
	at := func(d time.Duration) {
		now.Store(int64(d))
		sw.Sweep(d)
	}
	at(0)
	at(60 * time.Second) // no stream: nothing is asked
	s := start(t, k)
	defer s.Close()
	at(71 * time.Second)
	g := p.expect(framePing, 0)
	p.send(framePing, flagAck, 0, g.payload)
	p.sync()
	at(72 * time.Second)
	at(77 * time.Second) // it has answered
	at(83 * time.Second)
	p.expect(framePing, 0)
	at(87 * time.Second)
	if s.Err() != nil {
		t.Errorf("early: %v", s.Err())
	}
	at(88 * time.Second)
	if err := s.ReadHead(); !errors.Is(err, errLost) || Unsent(err) {
		t.Errorf("%v", err)
	}
	if err := <-errs; !errors.Is(err, errLost) {
		t.Errorf("Run: %v", err)
	}
}

func TestIdleTimeout(t *testing.T) {
	var now atomic.Int64
	sw := NewSweeper(func() time.Duration { return time.Duration(now.Load()) })
	v := serve(t, nil, &Config{Sweeper: sw, IdleTimeout: time.Minute}, answerWith(1))
	p := asClient(t, v)
	at := func(d time.Duration) {
		now.Store(int64(d))
		sw.Sweep(d)
	}
	p.get(1)
	p.expect(frameData, 1)
	p.send(frameSettings, flagAck, 0, nil)
	p.sync()
	at(50 * time.Second)
	p.get(3)
	p.expect(frameData, 3)
	eventually(t, func() bool { return !v.all()[0].Busy() })
	at(61 * time.Second)
	at(120 * time.Second)
	p.sync()
	at(121 * time.Second)
	if _, code := p.expectGoAway(); code != NoError {
		t.Error(code)
	}
	p.expectEnd()
}

func TestAPeerThatReadsNothing(t *testing.T) {
	var now atomic.Int64
	sw := NewSweeper(func() time.Duration { return time.Duration(now.Load()) })
	failed := make(chan error, 1)
	v := serve(t, nil, &Config{Sweeper: sw, WriteTimeout: 10 * time.Second}, func(s *Stream) {
		err := s.WriteResponse([]byte("HTTP/1.1 200 OK\r\n\r\n"), make([]byte, 64<<20), End)
		failed <- err
	})
	p := asClient(t, v, settingInitialWindow, maxWindow)
	p.send(frameSettings, flagAck, 0, nil)
	p.sendWord(frameWindowUpdate, 0, 1<<30)
	p.get(1)
	// The socket's buffers fill up, and then nothing moves.
	for d := time.Second; ; d += time.Second {
		now.Store(int64(d))
		sw.Sweep(d)
		select {
		case err := <-failed:
			if !errors.Is(err, errLost) {
				t.Errorf("%v", err)
			}
			return
		case <-time.After(5 * time.Millisecond):
		}
		if d > time.Hour {
			t.Fatal("never")
		}
	}
}

func TestWebSocket(t *testing.T) {
	v := serve(t, nil, &Config{ExtendedConnect: true}, func(s *Stream) {
		accept := sampleAccept
		if key := field(string(s.Head), "sec-websocket-key"); string(s.Protocol) == "websocket" && len(key) == 24 {
			accept = string(appendWebSocketAccept(nil, []byte(key)))
		}
		if strings.HasPrefix(string(s.Head), "GET /wrong ") {
			err := s.WriteResponse([]byte("HTTP/1.1 101 \r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: "+sampleAccept+"\r\n\r\n"), nil, 0)
			if err == ErrBadAccept {
				_ = s.WriteResponse([]byte("HTTP/1.1 502 \r\n\r\n"), nil, End)
			}
			return
		}
		if s.WriteResponse([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+accept+"\r\n\r\n"), nil, 0) != nil {
			return
		}
		_ = pass(s, s)
	})
	k := dial(t, v.addr, nil, nil)
	eventually(t, k.ExtendedConnect)
	open := func(path string) *Stream {
		s, err := k.Open()
		if err != nil {
			t.Fatal(err)
		}
		head := "GET " + path + " HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + sampleKey + "\r\n\r\n"
		if err := s.WriteRequest([]byte(head), nil, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.ReadHead(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open("/")
	if !strings.HasPrefix(string(s.Head), "HTTP/1.1 101 ") || field(string(s.Head), "sec-websocket-accept") != sampleAccept {
		t.Fatalf("%q", s.Head)
	}
	for i := range 3 {
		msg := strings.Repeat("m", 1+i*10_000)
		if err := s.Write([]byte(msg), 0); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(msg))
		if _, err := io.ReadFull(s, b); err != nil || string(b) != msg {
			t.Fatalf("%v", err)
		}
	}
	_ = s.Write(nil, End)
	if _, err := s.Peek(); err != io.EOF {
		t.Errorf("%v", err)
	}
	s.Close()
	s = open("/wrong")
	if !strings.HasPrefix(string(s.Head), "HTTP/1.1 502 ") {
		t.Errorf("%q", s.Head)
	}
	s.Close()
}

// field returns the value of a field of a head.
func field(head, name string) string {
	_, rest, _ := strings.Cut(head, "\r\n"+name+": ")
	v, _, _ := strings.Cut(rest, "\r\n")
	return v
}

func TestConnect(t *testing.T) {
	v := serve(t, nil, nil, func(s *Stream) {
		if s.WriteResponse([]byte("HTTP/1.1 200 \r\n\r\n"), nil, 0) == nil {
			_ = pass(s, s)
		}
	})
	k := dial(t, v.addr, nil, nil)
	s, err := k.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.WriteRequest([]byte("CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n"), []byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.ReadHead(); err != nil || string(s.Head) != "HTTP/1.1 200 OK\r\n\r\n" {
		t.Fatalf("%q, %v", s.Head, err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(s, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

// Faults of a server, as the client answers them.
func TestTheClientsFaultFinding(t *testing.T) {
	for name, x := range map[string]struct {
		send func(p *peer)
		code Code
		conn bool
	}{
		"data before the head": {func(p *peer) { p.send(frameData, 0, 1, []byte("x")) }, ProtocolError, false},
		"no status":            {func(p *peer) { p.headers(1, true, "x: y") }, ProtocolError, false},
		"capital letters":      {func(p *peer) { p.headers(1, true, ":status: 200", "X: y") }, ProtocolError, false},
		"101":                  {func(p *peer) { p.headers(1, false, ":status: 101") }, ProtocolError, false},
		"interim at the end":   {func(p *peer) { p.headers(1, true, ":status: 100") }, ProtocolError, false},
		"too much data": {func(p *peer) {
			p.headers(1, false, ":status: 200", "content-length: 1")
			p.send(frameData, 0, 1, []byte("xy"))
		}, ProtocolError, false},
		"too little data": {func(p *peer) {
			p.headers(1, false, ":status: 200", "content-length: 3")
			p.send(frameData, 1, 1, []byte("xy"))
		}, ProtocolError, false},
		"no data":              {func(p *peer) { p.headers(1, true, ":status: 200", "content-length: 3") }, ProtocolError, false},
		"trailers without end": {func(p *peer) { p.headers(1, false, ":status: 200"); p.headers(1, false, "x: y") }, ProtocolError, false},
		"status in trailers":   {func(p *peer) { p.headers(1, false, ":status: 200"); p.headers(1, true, ":status: 200") }, ProtocolError, false},
		"window by nothing":    {func(p *peer) { p.sendWord(frameWindowUpdate, 1, 0) }, ProtocolError, false},
		"window beyond":        {func(p *peer) { p.sendWord(frameWindowUpdate, 1, maxWindow) }, FlowControlError, false},
		"too many interim heads": {func(p *peer) {
			for range maxHeads + 1 {
				p.headers(1, false, ":status: 103")
			}
		}, EnhanceYourCalm, false},
		"push":                      {func(p *peer) { p.send(framePushPromise, flagEndHeaders, 1, []byte{0, 0, 0, 2}) }, ProtocolError, true},
		"a stream of its own":       {func(p *peer) { p.headers(2, false, ":status: 200") }, ProtocolError, true},
		"a stream not opened":       {func(p *peer) { p.headers(9, false, ":status: 200") }, ProtocolError, true},
		"push allowed by settings":  {func(p *peer) { p.settings(settingEnablePush, 1) }, ProtocolError, true},
		"compression":               {func(p *peer) { p.send(frameHeaders, flagEndHeaders, 1, []byte{0x80}) }, CompressionError, true},
		"goaway with a higher last": {func(p *peer) { p.send(frameGoAway, 0, 0, goAway(1, 0)); p.send(frameGoAway, 0, 0, goAway(3, 0)) }, ProtocolError, true},
	} {
		t.Run(name, func(t *testing.T) {
			k, p, errs := asServer(t, nil)
			s := start(t, k)
			defer s.Close()
			p.expect(frameHeaders, 1)
			x.send(p)
			var err error
			for err == nil {
				if err = s.ReadHead(); err == io.EOF {
					err = s.Err()
				}
			}
			_, _ = io.Copy(io.Discard, reader{s})
			var e *Error
			if !errors.As(s.Err(), &e) || e.Code != x.code || e.Remote || e.Conn != x.conn {
				t.Fatalf("%v", s.Err())
			}
			if x.conn {
				if _, code := p.expectGoAway(); code != x.code {
					t.Error(code)
				}
				if err := <-errs; !errors.As(err, &e) || e.Code != x.code {
					t.Errorf("Run: %v", err)
				}
			} else if g := p.expect(frameReset, 1); Code(g.word()) != x.code {
				t.Error(Code(g.word()))
			}
		})
	}
}

func TestTheServerTellsOtherProtocols(t *testing.T) {
	v := serve(t, nil, nil, answerWith(1))
	c, err := net.Dial("tcp", v.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
	_, _ = io.ReadAll(c)
	eventually(t, func() bool { v.mu.Lock(); defer v.mu.Unlock(); return len(v.errs) == 1 })
	if v.errs[0] != ErrPreface {
		t.Errorf("%v", v.errs[0])
	}
}

// Owners that close, reset and expire at any time, on both sides.
func TestChaos(t *testing.T) {
	sw := sweeping(t)
	v := serve(t, nil, &Config{Sweeper: sw, Streams: 20}, func(s *Stream) {
		switch n := len(s.Head) % 7; n {
		case 0:
			return
		case 1:
			s.Reset(Cancel)
		case 2:
			_ = s.WriteResponse([]byte("HTTP/1.1 200 \r\n\r\n"), make([]byte, 100_000), 0)
		case 3:
			s.SetDeadline(sw.Now() + time.Millisecond)
			_, _ = io.Copy(io.Discard, reader{s})
		default:
			echo(s)
		}
	})
	k := dial(t, v.addr, nil, &Config{Sweeper: sw})
	var all sync.WaitGroup
	var ok atomic.Int64
	for i := range 20 {
		all.Go(func() {
			for n := range 40 {
				s, err := k.Open()
				if err != nil {
					continue
				}
				head := "POST /" + strings.Repeat("p", (i+n)%29) + " HTTP/1.1\r\nhost: h\r\n\r\n"
				err = s.WriteRequest([]byte(head), make([]byte, n*3000), End)
				switch (i * n) % 5 {
				case 0:
					s.Reset(Cancel)
				case 1:
					s.Expire()
				default:
					if err == nil && s.ReadHead() == nil {
						if _, err := io.Copy(io.Discard, reader{s}); err == nil {
							ok.Add(1)
						}
					}
				}
				s.Close()
			}
		})
	}
	all.Wait()
	if ok.Load() == 0 {
		t.Error("nothing succeeded")
	}
	if k.Active() != 0 {
		t.Errorf("%d streams are left", k.Active())
	}
	server := v.all()[0]
	eventually(t, func() bool { return server.Active() == 0 })
	server.c.mu.Lock()
	defer server.c.mu.Unlock()
	if c := server.c; c.open != 0 || len(c.streams) != 0 || c.buffered != 0 || c.ready.front != nil {
		t.Errorf("left: %d open, %d streams, %d bytes buffered", c.open, len(c.streams), c.buffered)
	}
}

// Detection may have read the preface, or a part of it, before.
func TestAPrefaceThatWasReadBefore(t *testing.T) {
	for _, n := range []int{3, len(preface), len(preface) + 20} {
		c, far := pair(t)
		p := newPeer(t, far)
		b := append([]byte(preface), rawFrame(frameSettings, 0, 0, "")...)
		b = append(b, rawFrame(framePing, 0, 0, "12345678")...)
		if _, err := far.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		if err := c.Fill(); err != nil {
			t.Fatal(err)
		}
		s := NewServer(c, nil, answerWith(1))
		done := make(chan error, 1)
		go func() {
			done <- s.Serve()
			_ = c.Close()
		}()
		if _, err := far.Write(b[n:]); err != nil {
			t.Fatal(err)
		}
		p.expect(framePing, 0)
		p.get(1)
		p.expect(frameData, 1)
		far.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

func TestSaturation(t *testing.T) {
	k, p, _ := asServer(t, nil, settingInitialWindow, maxWindow)
	p.sendWord(frameWindowUpdate, 0, 1<<30)
	p.sync()
	if k.Saturated() {
		t.Error("at rest")
	}
	body := make([]byte, 16<<20)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			s, err := k.Open()
			if err != nil {
				return // one that fills the writer is enough
			}
			defer s.Close()
			if err := s.WriteRequest([]byte("POST / HTTP/1.1\r\nhost: h\r\n\r\n"), body, End); err == nil {
				t.Error("written, though nobody reads")
			}
		})
	}
	eventually(t, k.Saturated) // the peer does not read
	k.Close()
	all.Wait()
}

// A request that waits for room in the pending buffer has no number yet. Its
// deadline and the connection's end must reach it all the same.
func TestARequestThatWaitsForRoom(t *testing.T) {
	for _, by := range []string{"deadline", "end"} {
		c := detached(true)
		c.buffer()
		c.pend = c.pend[:c.cfg.PendingBytes]
		s := c.newStream()
		c.open++
		done := make(chan error, 1)
		go func() { done <- s.WriteRequest([]byte(getHead), nil, End) }()
		eventually(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return s.writing })
		if by == "deadline" {
			s.SetDeadline(1)
			c.sweep(2)
			if err := <-done; err != ErrExpired {
				t.Errorf("deadline: %v", err)
			}
		} else {
			c.mu.Lock()
			c.failLocked(&Error{Remote: true, Cause: io.EOF})
			c.mu.Unlock()
			if err := <-done; !Unsent(err) {
				t.Errorf("end: %v", err)
			}
		}
		c.mu.Lock()
		if c.ready.front != nil || len(c.streams) != 0 {
			t.Errorf("%s: still there", by)
		}
		c.mu.Unlock()
	}
}
