package upstream

import (
	"crypto/tls"
	"fmt"
	"testing"
	"time"
)

func TestPoolIsLastInFirstOut(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), 0)
	defer b.r.Release(c)
	c.SetLocal(at(b.server()))
	e := c.endpoints[0]
	one, two := b.get(e, Want{}), b.get(e, Want{})
	if one == two || one.Reused {
		t.Fatal("two at once are not two new ones")
	}
	b.wantConnections(c, 2, 0)
	e.Put(one, b.sw.Now())
	e.Put(two, b.sw.Now())
	b.wantConnections(c, 2, 2)
	if got := b.get(e, Want{Careful: true}); got != two || !got.Reused {
		t.Error("not the one used last")
	}
	if got := b.get(e, Want{Fresh: true}); got == one {
		t.Error("a kept one where a fresh one was wanted")
	} else {
		e.Drop(got)
	}
	e.Drop(two)
	b.wantConnections(c, 1, 1)
}

func TestPoolExpires(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), 0)
	defer b.r.Release(c)
	c.SetLocal(at(b.server()))
	e := c.endpoints[0]
	one, two := b.get(e, Want{}), b.get(e, Want{})
	e.Put(one, time.Second)
	e.Put(two, 2*time.Second)
	c.tick(time.Second + time.Minute)
	b.wantConnections(c, 2, 2)
	c.tick(1500*time.Millisecond + time.Minute)
	b.wantConnections(c, 1, 1)
	if got := e.pool.take(3*time.Minute, time.Minute, false, e.drop); got != nil {
		t.Error("an old connection was given")
	}
	b.wantConnections(c, 0, 0)
}

func TestPoolKeepsNothingWhenOff(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Keepalive = 0 }), 0)
	defer b.r.Release(c)
	c.SetLocal(at(b.server()))
	e := c.endpoints[0]
	e.Put(b.get(e, Want{}), b.sw.Now())
	b.wantConnections(c, 0, 0)
}

func TestExpiredConnectionIsNotKept(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), 0)
	defer b.r.Release(c)
	c.SetLocal(at(b.server()))
	e := c.endpoints[0]
	w := b.get(e, Want{})
	w.Expire()
	e.Put(w, b.sw.Now())
	b.wantConnections(c, 0, 0)
}

// TestUnexpectedBytes: a kept connection on which the peer has spoken, or which
// it has closed, is not given to a careful caller.
func TestUnexpectedBytes(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), 0)
	defer b.r.Release(c)
	c.SetLocal(at(b.server()))
	e := c.endpoints[0]
	w := b.get(e, Want{})
	if _, err := w.Write([]byte("x")); err != nil { // comes back
		t.Fatal(err)
	}
	e.Put(w, b.sw.Now())
	for end := time.Now().Add(20 * time.Second); w.Quiet() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := b.get(e, Want{Careful: true}); got == w {
		t.Error("a connection with bytes of nobody was given")
	} else {
		e.Drop(got)
	}
	b.wantConnections(c, 0, 0)
}

func TestRemovedEndpointKeepsNothing(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), 0)
	defer b.r.Release(c)
	c.SetLocal(at(b.server()))
	e := c.endpoints[0]
	idle, used := b.get(e, Want{}), b.get(e, Want{})
	e.Put(idle, b.sw.Now())
	c.SetLocal(nil)
	if n := c.Limits.Connections.Value(); n != 1 {
		t.Errorf("%d connections are counted, want that in use", n)
	}
	e.Put(used, b.sw.Now())
	if n := c.Limits.Connections.Value(); n != 0 {
		t.Errorf("%d connections are counted at the end", n)
	}
	if n := b.sw.Len(); n != 0 {
		t.Errorf("%d connections are open at the end", n)
	}
}

// TestTransportChange retires what is idle, what is in use, and what is being
// put back at that moment.
func TestTransportChange(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), 0)
	defer b.r.Release(c)
	c.SetLocal(at(b.server()))
	e := c.endpoints[0]
	idle, used, late := b.get(e, Want{}), b.get(e, Want{}), b.get(e, Want{})
	e.Put(idle, b.sw.Now())
	b.r.Acquire(spec(func(s *Spec) { s.Transport = "mtls a" }), 0)
	defer b.r.Release(c)
	b.wantConnections(c, 2, 0)
	e.Put(used, b.sw.Now())
	b.wantConnections(c, 1, 0)
	e.pool.put(late, b.sw.Now()) // as if Put had looked just before the change
	if got := b.get(e, Want{}); got == late {
		t.Error("a connection of the old transport was given")
	} else {
		e.Put(got, b.sw.Now())
	}
	b.wantConnections(c, 1, 1)
	// The same transport again: kept.
	b.r.Acquire(spec(func(s *Spec) { s.Transport = "mtls a"; s.Policy.Timeout = time.Second }), 0)
	defer b.r.Release(c)
	b.wantConnections(c, 1, 1)
}

// TestRenew has connections over TLS made anew, and lets others be.
func TestRenew(t *testing.T) {
	b := newBed(t)
	for _, secure := range []bool{false, true} {
		c := b.r.Acquire(spec(func(s *Spec) { s.Name = fmt.Sprint("api", secure) }), 0)
		defer b.r.Release(c)
		c.SetLocal(at(b.server()))
		e := c.endpoints[0]
		idle, used := b.get(e, Want{}), b.get(e, Want{})
		e.Put(idle, b.sw.Now())
		if secure { // from here on, for what Renew looks at
			s := *c.spec.Load()
			s.TLS = &tls.Config{}
			c.spec.Store(&s)
		}
		b.r.Renew()
		if secure {
			b.wantConnections(c, 1, 0)
			e.Put(used, b.sw.Now())
			b.wantConnections(c, 0, 0)
		} else {
			b.wantConnections(c, 2, 1)
			e.Put(used, b.sw.Now())
			b.wantConnections(c, 2, 2)
		}
	}
}

func TestConnectionLimitEvicts(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Limits.MaxConnections = 1 }), 0)
	defer b.r.Release(c)
	c.SetLocal(at(b.server(), b.server()))
	one, two := c.endpoints[0], c.endpoints[1]
	one.Put(b.get(one, Want{}), b.sw.Now())
	w := b.get(two, Want{})
	b.wantConnections(c, 1, 0)
	if _, oe := one.Get(Want{Now: b.sw.Now(), Deadline: b.sw.Now() + 20*time.Millisecond}); oe == nil || oe.Reason.String() != "limit_connections" {
		t.Errorf("got %v", oe)
	}
	// One who waits gets the connection that is put back.
	got := make(chan bool)
	go func() {
		leg, oe := two.Get(Want{Now: b.sw.Now()})
		if oe == nil {
			two.Drop(leg.Conn)
		}
		got <- leg.Conn == w
	}()
	for c.Limits.Pending.Value() == 0 {
		time.Sleep(time.Millisecond)
	}
	two.Put(w, b.sw.Now())
	if !<-got {
		t.Error("the waiting one got another connection")
	}
	b.wantConnections(c, 0, 0)
}

// TestFailedConnectGivesBack: no slot is lost on any failure.
func TestFailedConnectGivesBack(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Limits.MaxConnections = 1 }), 0)
	defer b.r.Release(c)
	c.SetLocal(numbered(1)) // 127.0.0.0:80
	e := c.endpoints[0]
	for range 3 {
		if w, oe := e.Get(Want{Now: b.sw.Now()}); oe == nil {
			e.Drop(w.Conn)
			t.Skip("something listens on 127.0.0.0:80")
		} else if r := oe.Reason.String(); r != "connect_failed" && r != "connect_timeout" {
			t.Errorf("reason %s", r)
		}
	}
	if _, oe := e.Get(Want{Now: 2, Deadline: 1}); oe == nil || oe.Reason.String() != "request_timeout" {
		t.Errorf("got %v", oe)
	}
	b.wantConnections(c, 0, 0)
	if p := c.Limits.Pending.Value(); p != 0 {
		t.Errorf("%d pending", p)
	}
}
