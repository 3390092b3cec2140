package relay

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/websocket"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// memory is a leg in memory, whose far side the test holds.
type memory struct {
	began time.Time

	mu       sync.Mutex
	changed  *sync.Cond
	in, out  []byte
	inEnd    bool
	outEnd   bool
	full     bool // takes nothing
	expired  bool
	reset    error // the far side has reset the leg
	deadline *time.Timer
	hook     http2.Canceler
}

func newMemory(began time.Time) *memory {
	m := &memory{began: began}
	m.changed = sync.NewCond(&m.mu)
	return m
}

func (m *memory) Peek() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		switch {
		case m.expired:
			return nil, wire.ErrExpired
		case m.reset != nil:
			return nil, m.reset
		case len(m.in) > 0:
			return m.in[:len(m.in):len(m.in)], nil
		case m.inEnd:
			return nil, io.EOF
		}
		m.changed.Wait()
	}
}

func (m *memory) Discard(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.in = m.in[n:]
}

func (m *memory) Release() {}

func (m *memory) Put(p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.full && !m.expired {
		m.changed.Wait()
	}
	switch {
	case m.expired:
		return wire.ErrExpired
	case m.reset != nil:
		return m.reset
	case m.outEnd:
		return errors.New("a write behind the end")
	}
	m.out = append(m.out, p...)
	return nil
}

func (m *memory) End() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.outEnd = true
	return nil
}

func (m *memory) SetDeadline(at time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.deadline != nil {
		m.deadline.Stop()
	}
	m.deadline = time.AfterFunc(time.Until(m.began.Add(at)), m.Expire)
	return !m.expired
}

func (m *memory) Expire() {
	m.mu.Lock()
	was := m.expired
	m.expired = true
	hook := m.hook
	m.changed.Broadcast()
	m.mu.Unlock()
	if hook != nil && !was {
		hook.Canceled()
	}
}

func (m *memory) Notify(w http2.Canceler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = w
}

func (m *memory) Err() (err error, finished bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.expired {
		return wire.ErrExpired, false
	}
	return m.reset, false
}

func (m *memory) Cut(bool) {}

// says has the far side send s.
func (m *memory) says(s string) {
	m.mu.Lock()
	m.in = append(m.in, s...)
	m.changed.Broadcast()
	m.mu.Unlock()
	synctest.Wait()
}

// hangsUp has the far side end its sending side.
func (m *memory) hangsUp() {
	m.mu.Lock()
	m.inEnd = true
	m.changed.Broadcast()
	m.mu.Unlock()
	synctest.Wait()
}

// resets has the far side reset the leg.
func (m *memory) resets() {
	m.mu.Lock()
	m.reset = &http2.Error{Code: http2.Cancel, Remote: true}
	hook := m.hook
	m.changed.Broadcast()
	m.mu.Unlock()
	hook.Canceled()
	synctest.Wait()
}

// got takes what the far side has received, with $ at the end.
func (m *memory) got() string {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := string(m.out)
	m.out = nil
	if m.outEnd {
		s += "$"
	}
	return s
}

// Frames of a server, and of a client with a mask of zeros.
const (
	hello       = "\x81\x05hello"
	helloMasked = "\x81\x85\x00\x00\x00\x00hello"
	bye         = "\x88\x02\x03\xe8"
	byeMasked   = "\x88\x82\x00\x00\x00\x00\x03\xe8"
)

// socket is a WebSocket through a relay whose clock is the bubble's.
type socket struct {
	t              *testing.T
	began          time.Time
	r              *Relay
	client, server *memory
	res            Result
	ended          chan bool
}

func withSocket(t *testing.T, cfg websocket.Config, f func(s *socket)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &socket{t: t, began: time.Now(), ended: make(chan bool)}
		s.client, s.server = newMemory(s.began), newMemory(s.began)
		s.r = New(s.client, s.server, Options{Now: func() time.Duration { return time.Since(s.began) }, WebSocket: &cfg})
		f(s)
		<-s.ended
	})
}

func (s *socket) run() {
	go func() {
		s.res = s.r.Run()
		close(s.ended)
	}()
	synctest.Wait()
}

func (s *socket) goAway() {
	s.r.GoAway()
	synctest.Wait()
}

// expect compares what both far sides have received since it was asked last.
func (s *socket) expect(client, server string) {
	s.t.Helper()
	if got := s.client.got(); got != client {
		s.t.Errorf("after %v the client got %q, want %q", time.Since(s.began), got, client)
	}
	got := s.server.got()
	if len(got) > 6 && strings.HasPrefix(got, "\x88") && got[1]&0x80 != 0 && got[2:6] != "\x00\x00\x00\x00" {
		got = unmask(got)
	}
	if got != server {
		s.t.Errorf("after %v the server got %q, want %q", time.Since(s.began), got, server)
	}
}

// unmask takes the mask off a frame, and marks it with an M.
func unmask(s string) string {
	b := []byte(s[6:])
	n := int(s[1] & 0x7f)
	for i := range b[:n] {
		b[i] ^= s[2+i%4]
	}
	return "M" + string([]byte{s[0], byte(n)}) + string(b)
}

// ends checks how the relay has ended.
func (s *socket) ends(why Closed, after time.Duration, expired bool) {
	s.t.Helper()
	<-s.ended
	if took := time.Since(s.began); s.res.Closed != why || took != after || errors.Is(s.res.Err, wire.ErrExpired) != expired {
		s.t.Errorf("ended with %+v after %v, want closed %d after %v", s.res, took, why, after)
	}
}

const (
	away = "\x88\x0c\x03\xe9going away"
	idle = "\x88\x06\x03\xe9idle"
)

func TestFramesPass(t *testing.T) {
	withSocket(t, websocket.Default(), func(s *socket) {
		s.run()
		s.server.says(hello + hello[:3])
		s.client.says(helloMasked)
		s.expect(hello+hello[:3], helloMasked)
		s.server.says(hello[3:] + bye)
		s.expect(hello[3:]+bye, "")
		s.client.says(byeMasked)
		s.expect("", byeMasked)
		s.server.hangsUp()
		s.expect("$", "")
		s.client.hangsUp()
		s.ends(ByPeers, 0, false)
		if s.res.Sent != uint64(len(helloMasked+byeMasked)) || s.res.Received != uint64(len(hello+hello+bye)) {
			t.Errorf("result %+v", s.res)
		}
	})
}

// TestGoAway: the client is asked, its last messages go on, its answer asks the
// server, and whoever has answered is left.
func TestGoAway(t *testing.T) {
	withSocket(t, websocket.Default(), func(s *socket) {
		s.run()
		s.server.says(hello)
		s.goAway()
		s.expect(hello+away, "")
		s.server.says(hello) // too late
		s.client.says(helloMasked)
		s.expect("", helloMasked)
		s.client.says(byeMasked)
		s.expect("", byeMasked)
		s.server.says(hello + bye)
		s.expect("$", "")
		s.client.hangsUp()
		s.expect("$", "$")
		s.ends(GoingAway, 0, false)
		if s.res.Received != uint64(len(hello)) {
			t.Errorf("result %+v", s.res)
		}
	})
}

// TestGoAwayWithinAFrame: the close frame waits for the frame's end, between the
// fragments of a message.
func TestGoAwayWithinAFrame(t *testing.T) {
	withSocket(t, websocket.Default(), func(s *socket) {
		s.run()
		fragment := "\x01\x05hello"
		s.server.says(fragment[:3])
		s.goAway()
		s.goAway()
		s.expect(fragment[:3], "")
		s.server.says(fragment[3:] + "\x80\x05world")
		s.expect(fragment[3:]+away, "")
		s.client.says(byeMasked)
		s.server.says(bye)
		s.client.hangsUp()
		s.ends(GoingAway, 0, false)
	})
}

// TestNoAnswer: whoever does not answer is not waited for long.
func TestNoAnswer(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		withSocket(t, websocket.Default(), func(s *socket) {
			s.run()
			s.goAway()
			s.expect(away, "")
			time.Sleep(answerTime - 1)
			s.expect("", "")
			time.Sleep(time.Nanosecond)
			s.expect("", "M"+away)
			s.server.says(bye)
			s.ends(GoingAway, 2*answerTime, true)
		})
	})
	t.Run("server", func(t *testing.T) {
		withSocket(t, websocket.Default(), func(s *socket) {
			s.run()
			s.goAway()
			s.client.says(byeMasked)
			s.expect(away, byeMasked)
			s.ends(GoingAway, 2*answerTime, true)
		})
	})
	t.Run("client within a frame", func(t *testing.T) {
		withSocket(t, websocket.Default(), func(s *socket) {
			s.run()
			s.client.says(helloMasked[:7])
			s.goAway()
			s.expect(away, helloMasked[:7])
			time.Sleep(answerTime)
			s.expect("", "")
			s.client.says(helloMasked[7:] + helloMasked)
			if got := s.server.got(); !strings.HasPrefix(got, helloMasked[7:]+"\x88\x8c") || len(got) != len(helloMasked[7:])+6+12 {
				t.Errorf("the server got %q", got)
			}
			s.ends(GoingAway, 2*answerTime, true)
		})
	})
	t.Run("client takes nothing", func(t *testing.T) {
		withSocket(t, websocket.Default(), func(s *socket) {
			s.run()
			s.client.full = true
			s.server.says(hello)
			s.goAway()
			time.Sleep(answerTime)
			s.expect("", "M"+away)
			s.ends(GoingAway, 2*answerTime, true)
		})
	})
	t.Run("client hangs up", func(t *testing.T) {
		withSocket(t, websocket.Default(), func(s *socket) {
			s.run()
			s.goAway()
			s.expect(away, "")
			s.client.hangsUp()
			s.expect("", "M"+away+"$")
			s.server.hangsUp()
			s.expect("$", "$")
			s.ends(GoingAway, 0, false)
		})
	})
	t.Run("server hangs up", func(t *testing.T) {
		withSocket(t, websocket.Default(), func(s *socket) {
			s.run()
			s.goAway()
			s.server.hangsUp()
			s.expect(away+"$", "")
			s.client.says(byeMasked)
			s.client.hangsUp()
			s.expect("$", byeMasked+"$")
			s.ends(GoingAway, 0, false)
		})
	})
}

// TestResetAfterGoodbye: a side that resets its leg once it has said goodbye, or
// was told to, has ended in order. Before, it has not.
func TestResetAfterGoodbye(t *testing.T) {
	withSocket(t, websocket.Default(), func(s *socket) {
		s.run()
		s.client.says(byeMasked)
		s.client.resets()
		s.expect("", byeMasked+"$")
		s.ends(NotClosed, 0, false)
		if s.res.Broke != Nobody || s.res.Err != nil {
			t.Errorf("result %+v", s.res)
		}
	})
	withSocket(t, websocket.Default(), func(s *socket) {
		s.run()
		s.goAway()
		s.client.resets()
		s.expect(away, "M"+away+"$")
		s.ends(GoingAway, 0, false)
		if s.res.Broke != Nobody || s.res.Err != nil {
			t.Errorf("result %+v", s.res)
		}
	})
	withSocket(t, websocket.Default(), func(s *socket) {
		s.run()
		s.server.says(bye)
		s.client.resets()
		<-s.ended
		if s.res.Broke != Downstream || s.res.Err == nil {
			t.Errorf("result %+v", s.res)
		}
	})
}

// TestPeersLinger: peers that have said goodbye and do not end are not waited
// for long, and those that are at it are not disturbed.
func TestPeersLinger(t *testing.T) {
	withSocket(t, websocket.Default(), func(s *socket) {
		s.run()
		time.Sleep(time.Minute)
		s.client.says(byeMasked)
		s.goAway()
		s.expect("", byeMasked)
		s.server.says(bye)
		s.expect(bye+"$", "")
		s.ends(GoingAway, time.Minute+2*answerTime, true)
	})
	withSocket(t, websocket.Default(), func(s *socket) {
		s.run()
		s.client.says(byeMasked)
		s.server.says(bye)
		s.goAway()
		s.expect(bye, byeMasked)
		s.ends(ByPeers, 2*answerTime, true)
	})
}

func TestWebSocketIdle(t *testing.T) {
	withSocket(t, websocket.Config{IdleTimeout: time.Minute}, func(s *socket) {
		s.run()
		for range 5 {
			time.Sleep(59 * time.Second)
			s.client.says(helloMasked)
			s.expect("", helloMasked)
			time.Sleep(59 * time.Second)
			s.server.says(hello)
			s.expect(hello, "")
		}
		time.Sleep(time.Minute - 1)
		s.expect("", "")
		time.Sleep(time.Nanosecond)
		s.expect(idle, "")
		s.client.says(byeMasked)
		s.server.says(bye)
		s.client.hangsUp()
		s.ends(Idle, 10*59*time.Second+time.Minute, false)
	})
}

func TestWebSocketLifetime(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 20 {
		withSocket(t, websocket.Config{MaxLifetime: time.Hour, IdleTimeout: time.Minute}, func(s *socket) {
			s.run()
			for s.client.got() == "" {
				s.client.says(helloMasked)
				s.server.got()
				time.Sleep(time.Second)
			}
			age := time.Since(s.began)
			if age < 54*time.Minute || age > 66*time.Minute+time.Second {
				t.Errorf("closed after %v", age)
			}
			seen[age] = true
			s.client.says(byeMasked)
			s.server.says(bye)
			s.client.hangsUp()
			s.ends(Lifetime, age, false)
		})
	}
	if len(seen) < 5 {
		t.Errorf("closed at %d different ages of 20", len(seen))
	}
}

// TestGoAwayAnyTime: before the start and after the end, and where there are no
// frames.
func TestGoAwayAnyTime(t *testing.T) {
	withSocket(t, websocket.Config{}, func(s *socket) {
		s.goAway()
		s.run()
		s.expect(away, "")
		s.client.says(byeMasked)
		s.server.says(bye)
		s.client.hangsUp()
		s.ends(GoingAway, 0, false)
		s.goAway()
	})
	withSocket(t, websocket.Config{}, func(s *socket) {
		s.r = New(s.client, s.server, Options{Now: func() time.Duration { return time.Since(s.began) }})
		s.run()
		s.goAway()
		time.Sleep(time.Hour)
		s.expect("", "")
		s.client.hangsUp()
		s.server.hangsUp()
		s.ends(NotClosed, time.Hour, false)
	})
}
