package http2

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
)

// answerWith answers with a body of n bytes.
func answerWith(n int) func(*Stream) {
	return func(s *Stream) {
		_ = s.WriteResponse([]byte("HTTP/1.1 200 OK\r\n\r\n"), bytes.Repeat([]byte("x"), n), End)
	}
}

func TestSendingKeepsToTheStreamsWindow(t *testing.T) {
	v := serve(t, nil, nil, answerWith(25))
	p := asClient(t, v, settingInitialWindow, 10)
	p.get(1)
	if n, end := p.body(1, 10); n != 10 || end {
		t.Fatalf("%d bytes, end %v", n, end)
	}
	p.sendWord(frameWindowUpdate, 1, 5)
	if n, end := p.body(1, 5); n != 5 || end {
		t.Fatalf("%d bytes, end %v", n, end)
	}
	// A larger initial window widens the streams that are open too; 10 more.
	p.settings(settingInitialWindow, 20)
	if n, end := p.body(1, 10); n != 10 || !end {
		t.Fatalf("%d bytes, end %v", n, end)
	}
}

func TestASmallerWindowMayBecomeNegative(t *testing.T) {
	v := serve(t, nil, nil, answerWith(100))
	p := asClient(t, v, settingInitialWindow, 50)
	p.get(1)
	p.body(1, 50)
	p.settings(settingInitialWindow, 10) // the window is -40
	p.sendWord(frameWindowUpdate, 1, 45) // and now 5
	if n, _ := p.body(1, 5); n != 5 {
		t.Fatalf("%d bytes", n)
	}
	p.sendWord(frameWindowUpdate, 1, 1000)
	if n, end := p.body(1, 45); n != 45 || !end {
		t.Fatalf("%d bytes, end %v", n, end)
	}
}

func TestSendingKeepsToTheConnectionsWindow(t *testing.T) {
	v := serve(t, nil, nil, answerWith(50_000))
	p := asClient(t, v, settingInitialWindow, 1<<20)
	p.get(1)
	p.get(3)
	sizes, left := map[uint32]int{}, 3
	for sizes[1]+sizes[3] < initialWindow {
		g, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if g.kind == frameData {
			sizes[g.id] += len(g.payload)
			if g.flags&flagEndStream != 0 {
				left--
			}
		}
	}
	if sizes[1]+sizes[3] != initialWindow {
		t.Fatalf("%v: more than the window", sizes)
	}
	// Heads are not subject to it.
	p.get(5)
	p.expect(frameHeaders, 5)
	p.sendWord(frameWindowUpdate, 0, 1<<20)
	for left > 0 {
		g, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if g.kind == frameData {
			sizes[g.id] += len(g.payload)
			if g.flags&flagEndStream != 0 {
				left--
			}
		}
	}
	for id, n := range sizes {
		if n != 50_000 {
			t.Errorf("stream %d: %d bytes", id, n)
		}
	}
}

// A stream that nobody reads holds up no other.
func TestAStalledStreamHoldsUpNoOther(t *testing.T) {
	release := make(chan struct{})
	cfg := &Config{Window: 100 << 10, ConnWindow: 150 << 10}
	v := serve(t, nil, cfg, func(s *Stream) {
		if bytes.HasPrefix(s.Head, []byte("PUT")) {
			<-release
		}
		n, _ := io.Copy(io.Discard, reader{s})
		_ = s.WriteResponse([]byte("HTTP/1.1 200 OK\r\n\r\n"), bytes.Repeat([]byte("x"), int(n>>10)), End)
	})
	k := dial(t, v.addr, nil, nil)
	type result struct {
		a   answer
		err error
	}
	stalled := make(chan result, 3)
	for range 3 {
		go func() {
			a, err := roundTrip(k, "PUT / HTTP/1.1\r\nhost: h\r\n\r\n", strings.Repeat("y", 400<<10), "")
			stalled <- result{a, err}
		}()
	}
	for range 20 {
		a, err := roundTrip(k, "POST / HTTP/1.1\r\nhost: h\r\n\r\n", strings.Repeat("z", 200<<10), "")
		if err != nil || len(a.body) != 200 {
			t.Fatalf("%d, %v", len(a.body), err)
		}
	}
	close(release)
	for range 3 {
		if r := <-stalled; r.err != nil || len(r.a.body) != 400 {
			t.Errorf("%d, %v", len(r.a.body), r.err)
		}
	}
}

// What waits to be read is bounded: the connection's window is not given back
// beyond ConnBuffer.
func TestTheConnectionsBufferIsBounded(t *testing.T) {
	release := make(chan struct{})
	cfg := &Config{Window: 1 << 20, ConnWindow: 64 << 10, ConnBuffer: 100 << 10}
	v := serve(t, nil, cfg, func(s *Stream) {
		<-release
		n, err := io.Copy(io.Discard, reader{s})
		if err == nil {
			_ = s.WriteResponse([]byte("HTTP/1.1 200 OK\r\n\r\n"), bytes.Repeat([]byte("x"), int(n>>10)), End)
		}
	})
	p := asClient(t, v)
	p.post(1)
	window := initialWindow
	sent := 0
	update := func(g got) {
		if g.kind == frameWindowUpdate && g.id == 0 {
			window += int(g.word())
		}
	}
	// Send as much as is allowed until no more is, which sync shows.
	for {
		for window > 0 {
			n := min(window, 10_000)
			p.send(frameData, 0, 1, make([]byte, n))
			window -= n
			sent += n
		}
		p.send(framePing, 0, 0, []byte("a probe."))
		for {
			g, err := p.next()
			if err != nil {
				t.Fatal(err)
			}
			update(g)
			if g.kind == framePing {
				break
			}
		}
		if window == 0 {
			break
		}
	}
	if most := 100<<10 + 64<<10 + initialWindow; sent > most {
		t.Errorf("%d bytes were taken, want at most %d", sent, most)
	}
	close(release)
	for window <= 0 {
		g, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		update(g)
	}
	p.send(frameData, flagEndStream, 1, make([]byte, 1))
	if n, end := p.body(1, sent); n != (sent+1)>>10 || !end {
		t.Errorf("%d, end %v", n, end)
	}
}

// A stream that uses its window is given more at once.
func TestWindowsGrow(t *testing.T) {
	v := serve(t, nil, &Config{Window: 64 << 10, MaxWindow: 256 << 10}, func(s *Stream) {
		_, _ = io.Copy(io.Discard, reader{s})
		_ = s.WriteResponse([]byte("HTTP/1.1 200 OK\r\n\r\n"), nil, End)
	})
	p := asClient(t, v)
	p.post(1)
	stream, conn := 64<<10, initialWindow
	most := 0
	for sent := 0; sent < 4<<20; {
		for n := min(stream, conn, maxFrame); n > 0; n = min(stream, conn, maxFrame) {
			p.send(frameData, 0, 1, make([]byte, n))
			stream, conn, sent = stream-n, conn-n, sent+n
		}
		g, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if g.kind == frameWindowUpdate && g.id == 0 {
			conn += int(g.word())
		} else if g.kind == frameWindowUpdate {
			stream += int(g.word())
			most = max(most, stream)
		}
	}
	if most <= 64<<10 || most > 256<<10 {
		t.Errorf("the stream's window came to %d", most)
	}
}

func TestReceivingEnforcesTheWindows(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	v := serve(t, nil, &Config{Window: 20_000, ConnWindow: 70_000}, func(s *Stream) { <-block })
	p := asClient(t, v)
	p.post(1)
	p.send(frameData, 0, 1, make([]byte, 16_000))
	p.send(frameData, 0, 1, make([]byte, 4_001))
	if g := p.expect(frameReset, 1); Code(g.word()) != FlowControlError {
		t.Errorf("reset with %s", Code(g.word()))
	}
	p.post(3)
	p.send(frameData, flagPadded, 3, append([]byte{200}, make([]byte, 200+15_000)...)) // padding counts
	p.send(frameData, 0, 3, make([]byte, 4_800))
	if g := p.expect(frameReset, 3); Code(g.word()) != FlowControlError {
		t.Errorf("reset with %s", Code(g.word()))
	}
}

// Streams take turns: long responses share what is sent, and a short one gets
// through between them.
func TestStreamsTakeTurns(t *testing.T) {
	const long = 8 << 20
	body := make([]byte, long)
	var ready sync.WaitGroup
	ready.Add(4)
	v := serve(t, nil, nil, func(s *Stream) {
		n := 1000
		if bytes.HasPrefix(s.Head, []byte("PUT")) {
			n = long
			_ = s.WriteResponse([]byte("HTTP/1.1 200 OK\r\n\r\n"), nil, 0)
			ready.Done()
			ready.Wait()
			_ = s.Write(body[:n], End)
			return
		}
		_ = s.WriteResponse([]byte("HTTP/1.1 200 OK\r\n\r\n"), body[:n], End)
	})
	p := asClient(t, v, settingInitialWindow, maxWindow)
	for id := uint32(1); id < 9; id += 2 {
		p.headers(id, true, ":method: PUT", ":scheme: http", ":path: /", ":authority: h")
	}
	p.sync()
	p.sendWord(frameWindowUpdate, 0, 1<<30)
	sizes := map[uint32]int{}
	short := false
	for total := 0; total < 3*long; {
		g, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if g.kind != frameData {
			continue
		}
		if total == 0 {
			p.get(9)
		}
		total += len(g.payload)
		sizes[g.id] += len(g.payload)
		short = short || g.id == 9 && g.flags&flagEndStream != 0
	}
	if !short {
		t.Error("the short response waits for the long ones")
	}
	for id := uint32(1); id < 9; id += 2 {
		if sizes[id] < long/2 {
			t.Errorf("stream %d has had %d bytes only: %v", id, sizes[id], sizes)
		}
	}
}
