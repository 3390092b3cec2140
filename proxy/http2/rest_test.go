package http2

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// bedroom is a server with one connection, which rests whenever it may.
type bedroom struct {
	*peer
	s      *Server
	set    *wire.Resting
	sw     *Sweeper
	now    atomic.Int64
	served chan error
}

func restful(t *testing.T, cfg Config, handle func(*Stream)) *bedroom {
	t.Helper()
	b := &bedroom{served: make(chan error, 1)}
	var err error
	if b.set, err = wire.NewResting(); err != nil {
		t.Fatal(err)
	}
	b.sw = NewSweeper(func() time.Duration { return time.Duration(b.now.Load()) })
	cfg.Rests, cfg.Sweeper = true, b.sw
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	ln.Close()
	if err != nil {
		t.Fatal(err)
	}
	w, err := wire.New(near.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	b.s = NewServer(w, &cfg, handle)
	b.peer = newPeer(t, far)
	ctx, cancel := context.WithCancel(context.Background())
	ran, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ran)
		_ = b.set.Run(ctx)
	}()
	go func() {
		defer close(ended)
		err := b.s.Serve()
		for err == wire.ErrResting {
			woken := make(chan struct{})
			if b.set.Add(w, func() { close(woken) }) {
				<-woken
			}
			err = b.s.Serve()
		}
		_ = w.Close()
		b.served <- err
	}()
	t.Cleanup(func() {
		b.s.Close()
		<-ended
		cancel()
		<-ran
	})
	if _, err := far.Write([]byte(preface)); err != nil {
		t.Fatal(err)
	}
	b.settings()
	b.send(frameSettings, flagAck, 0, nil)
	return b
}

// fallAsleep sweeps until the connection rests and holds nothing that it does not
// need. It returns how many bytes it has laid by.
func (b *bedroom) fallAsleep() (laid int) {
	b.t.Helper()
	c := b.s.c
	eventually(b.t, func() bool {
		b.sw.Sweep(time.Duration(b.now.Add(int64(SweepInterval))))
		c.mu.Lock()
		defer c.mu.Unlock()
		laid = len(c.laid.fields)
		return b.set.Len() == 1 && c.desk == nil && c.streams == nil && c.kick == nil
	})
	return laid
}

// Both sides' tables outlast a rest, and whatever the connection was told before.
func TestTablesOutlastRests(t *testing.T) {
	b := restful(t, Config{}, func(s *Stream) {
		got := strings.ReplaceAll(strings.TrimSpace(string(s.Head)), "\r\n", "|")
		_ = s.WriteResponse([]byte("HTTP/1.1 200 OK\r\nserver: tests\r\nx-always: the same\r\nx-got: "+got+"\r\n\r\n"), nil, End)
	})
	id := uint32(1)
	ask := func(more ...string) {
		t.Helper()
		list := append([]string{
			":method: GET", ":scheme: http", ":path: /a/path", ":authority: a.host", "user-agent: tests/1.0",
			"accept: */*", "x-mine: Ünïcode \"and\" {signs}", "x-empty: ", "te: trailers", "cookie: a=b",
		}, more...)
		b.headers(id, true, list...)
		g := b.expect(frameHeaders, id)
		id += 2
		f, err := b.dec.DecodeFull(g.payload)
		if err != nil {
			t.Fatal(err)
		}
		want := "GET /a/path HTTP/1.1|host: a.host|user-agent: tests/1.0|accept: */*|x-mine: Ünïcode \"and\" {signs}|x-empty: |te: trailers|"
		for _, m := range more {
			want += m + "|"
		}
		want += "cookie: a=b"
		if got, want := fields(f).String(), ":status: 200\nserver: tests\nx-always: the same\nx-got: "+want+"\n"; got != want {
			t.Fatalf("got\n%s, want\n%s", got, want)
		}
	}
	for round := range 6 {
		for i := range 3 {
			ask(fmt.Sprintf("x-round: %d", round))
			if round == 3 { // the tables turn over
				ask("x-long: "+strings.Repeat("long", 500), fmt.Sprintf("x-of-its-own: %d", i))
			}
		}
		if n := b.fallAsleep(); n == 0 || n > tableSize {
			t.Fatalf("%d bytes laid by", n)
		}
	}
	if b.set.Total() < 6 {
		t.Error(b.set.Total())
	}
}

// A connection at rest can be drained, ended and told that it is idle for too long.
func TestWhatHappensAtRest(t *testing.T) {
	for name, do := range map[string]func(*bedroom){
		"drain": func(b *bedroom) {
			b.s.Drain()
			if last, code := b.expectGoAway(); last != maxStreamID || code != NoError {
				b.t.Error(last, code)
			}
			g := b.expect(framePing, 0)
			b.send(framePing, flagAck, 0, g.payload)
		},
		"close":      func(b *bedroom) { b.s.Close() },
		"close idle": func(b *bedroom) { b.s.CloseIdle() },
		"idle": func(b *bedroom) {
			b.sw.Sweep(time.Duration(b.now.Add(int64(time.Hour))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := restful(t, Config{IdleTimeout: time.Minute}, answerWith(3))
			b.t = t
			b.get(1)
			b.body(1, 3)
			b.fallAsleep()
			if b.s.EndStalled() != 0 || b.s.Busy() || b.s.Streams() != 1 {
				t.Error("it is not at rest")
			}
			do(b)
			if last, code := b.expectGoAway(); last != 1 || code != NoError {
				t.Error(last, code)
			}
			b.expectEnd()
			if err := <-b.served; err != nil {
				t.Error(err)
			}
		})
	}
}

// What a reset stream's peer still sends is no fault after a rest either.
func TestResetsOutlastRests(t *testing.T) {
	b := restful(t, Config{}, func(s *Stream) { s.Reset(Cancel) })
	b.post(1)
	b.expect(frameReset, 1)
	b.fallAsleep()
	b.send(frameData, 0, 1, []byte("x"))
	b.headers(1, true, "a: b")
	b.sync()
	b.get(3)
	b.expect(frameReset, 3)
}
