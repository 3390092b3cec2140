package limiter

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

var caller = [][]byte{[]byte("a")}

func limit() *Limit { return &Limit{Name: "caller", Entries: []string{"identity"}, Hits: 1} }

// What the service says is what comes back, and what it is told is what the
// request has.
func TestAsk(t *testing.T) {
	var got []byte
	s := start(t, "127.0.0.1:0", func(_ context.Context, req []byte) ([]byte, error) {
		got = req
		return new(response).code(1).status(1, 60, 2, 59, &[2]int64{30, 0}).b, nil
	})
	set := newSet(t, config(s.address, nil))
	l := limit()
	l.Rate = &ratelimit.Config{Requests: 60, Per: time.Minute}
	a := set.GRPC(l).Take(0, 0, caller)
	if a.Failure != ratelimit.NoFailure || !a.OK || a.Remaining != 59 || a.Full != 30*time.Second || a.Policy.Requests != 60 {
		t.Errorf("%+v", a)
	}
	want := (&question{domain: "shop", keys: []string{"identity"}, values: caller, rate: override{60, 2}, hits: 1}).append(nil)
	if hex.EncodeToString(got) != hex.EncodeToString(want) {
		t.Errorf("it was told %x, want %x", got, want)
	}
	s.behave(always(new(response).code(2).status(2, 60, 2, 0, &[2]int64{7, 0})))
	if a := set.GRPC(l).Take(0, 0, caller); a.Failure != ratelimit.NoFailure || a.OK || a.Wait != 7*time.Second || a.Partial {
		t.Errorf("%+v", a)
	}
}

// Each way not to answer is told apart, and none is taken for an answer.
func TestNoAnswer(t *testing.T) {
	s := start(t, "127.0.0.1:0", nil)
	for name, c := range map[string]struct {
		how  behaviour
		want ratelimit.Failure
	}{
		"slow": {never, ratelimit.Timeout},
		"an error": {func(context.Context, []byte) ([]byte, error) {
			return nil, status.Error(codes.InvalidArgument, "no such domain")
		}, ratelimit.Refused},
		"unavailable":   {func(context.Context, []byte) ([]byte, error) { return nil, status.Error(codes.Unavailable, "away") }, ratelimit.Unreachable},
		"no code":       {always(new(response)), ratelimit.Malformed},
		"a code beyond": {always(new(response).code(3)), ratelimit.Malformed},
		"not protobuf":  {func(context.Context, []byte) ([]byte, error) { return []byte("\xff\xff\xff"), nil }, ratelimit.Malformed},
		"too long": {func(context.Context, []byte) ([]byte, error) {
			return new(response).code(1).header("x", strings.Repeat("y", maxReply)).b, nil
		}, ratelimit.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			s.behave(c.how)
			set := newSet(t, config(s.address, func(c *GRPC) {
				if name == "slow" {
					c.Timeout = 50 * time.Millisecond
				}
			}))
			a := set.GRPC(limit()).Take(0, 0, caller)
			if a.Failure != c.want || a.OK || a.Err == nil {
				t.Errorf("%+v, want %s", a, c.want)
			}
		})
	}
}

// A service that is dead is not waited for by every request: after some the
// breaker opens, and once it answers again it is asked again.
func TestDeadService(t *testing.T) {
	s := start(t, "127.0.0.1:0", never)
	set := newSet(t, config(s.address, func(c *GRPC) {
		c.Timeout = 5 * time.Millisecond
		c.Breaker = breaker.Default()
		c.Breaker.ConsecutiveFailures, c.Breaker.OpenFor = 3, time.Hour
	}))
	take := func() ratelimit.Failure { return set.GRPC(limit()).Take(set.now(), 0, caller).Failure }
	for i := range 3 {
		if f := take(); f != ratelimit.Timeout {
			t.Fatalf("question %d: %s", i+1, f)
		}
	}
	calls := s.calls.Load()
	for range 1000 {
		if f := take(); f != ratelimit.Open {
			t.Fatalf("with the breaker open: %s", f)
		}
	}
	if n := s.calls.Load(); n > 3 || n < calls {
		t.Errorf("it was asked %d times", n)
	}
}

func TestServiceComesBack(t *testing.T) {
	s := start(t, "127.0.0.1:0", always(new(response).code(1)))
	set := newSet(t, config(s.address, func(c *GRPC) { c.Breaker.OpenFor = 10 * time.Millisecond }))
	c := set.GRPC(limit())
	if a := c.Take(set.now(), 0, caller); !a.OK {
		t.Fatalf("%+v", a)
	}
	s.stop()
	failed := 0
	for range 100 {
		if a := c.Take(set.now(), 0, caller); a.Failure != ratelimit.NoFailure {
			failed++
		}
	}
	if failed < 99 { // one may have been on its way
		t.Fatalf("only %d of 100 questions to a service that is gone failed", failed)
	}
	start(t, s.address, always(new(response).code(2)))
	until := time.Now().Add(patience)
	for time.Now().Before(until) {
		if a := c.Take(set.now(), 0, caller); a.Failure == ratelimit.NoFailure {
			if a.OK {
				t.Fatalf("%+v", a)
			}
			return
		}
		wait(5 * time.Millisecond)
	}
	t.Error("a service that is back is not asked again")
}

// wait lets the real time pass that a breaker or a connection is given.
func wait(d time.Duration) { <-time.After(d) }

// No more questions are under way than may be; a caller in a hurry is not kept,
// and its hurry does not count against the service.
func TestBounds(t *testing.T) {
	enough := make(chan struct{})
	s := start(t, "127.0.0.1:0", func(context.Context, []byte) ([]byte, error) {
		<-enough
		return new(response).code(1).b, nil
	})
	set := newSet(t, config(s.address, func(c *GRPC) { c.MaxInFlight = 3 }))
	c := set.GRPC(limit())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if a := c.Take(set.now(), 0, caller); !a.OK {
				t.Errorf("%+v", a)
			}
		})
	}
	for until := time.Now().Add(patience); set.grpc.inFlight.Load() < 3; wait(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the questions are not put")
		}
	}
	if a := c.Take(set.now(), 0, caller); a.Failure != ratelimit.Busy {
		t.Errorf("%+v", a)
	}
	close(enough)
	wg.Wait()
	if n := set.grpc.inFlight.Load(); n != 0 {
		t.Errorf("%d questions are still under way", n)
	}
	s.behave(never)
	for range 20 {
		if a := c.Take(set.now(), time.Millisecond, caller); a.Failure != ratelimit.Timeout {
			t.Fatalf("%+v", a)
		}
	}
	if a := c.Take(set.now(), -1, caller); a.Failure != ratelimit.Timeout {
		t.Errorf("%+v", a)
	}
}

// A service that stays keeps its connection; another one is called, and the
// one before is closed only when nobody asks it any more.
func TestSetChanges(t *testing.T) {
	one := start(t, "127.0.0.1:0", always(new(response).code(1)))
	two := start(t, "127.0.0.1:0", always(new(response).code(2)))
	set := newSet(t, config(one.address, nil))
	first := set.grpc
	old := set.GRPC(limit())
	set.Use(config(one.address, nil))
	if set.grpc != first {
		t.Error("the same service is another one")
	}
	set.Use(config(two.address, nil))
	if a := set.GRPC(limit()).Take(set.now(), 0, caller); a.Failure != ratelimit.NoFailure || a.OK {
		t.Errorf("the new one: %+v", a)
	}
	if a := old.Take(set.now(), 0, caller); !a.OK {
		t.Errorf("the old one, which a plan may still have: %+v", a)
	}
	set.Use(Spec{})
	if set.grpc != nil {
		t.Error("a service that nobody wants is kept")
	}
	if len(set.retired) != 2 {
		t.Errorf("%d wait to be closed", len(set.retired))
	}
	now := set.now()
	set.mu.Lock()
	set.now = func() time.Duration { return now + time.Hour }
	set.mu.Unlock()
	if d := set.closeRetired(); d != 0 || len(set.retired) != 0 {
		t.Errorf("%d are left, for %s", len(set.retired), d)
	}
	if a := old.Take(now, 0, caller); a.Failure != ratelimit.Unreachable {
		t.Errorf("after its time: %+v", a)
	}
}

// 10,000 callers are told apart.
func TestManyKeys(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	s := start(t, "127.0.0.1:0", func(_ context.Context, req []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		seen[string(req)]++
		return new(response).code(uint64(min(seen[string(req)], 2))).b, nil
	})
	set := newSet(t, config(s.address, nil))
	c := set.GRPC(limit())
	const callers, workers = 10_000, 20
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < callers; i += workers {
				v := [][]byte{[]byte(time.Duration(i).String())}
				if a, b := c.Take(set.now(), 0, v), c.Take(set.now(), 0, v); !a.OK || b.OK || b.Failure != ratelimit.NoFailure {
					t.Errorf("caller %d: %+v, then %+v", i, a, b)
				}
			}
		})
	}
	wg.Wait()
	if len(seen) != callers {
		t.Errorf("%d callers were told apart", len(seen))
	}
}

// Over mTLS both sides present a certificate; a server without the right one is
// not believed.
func TestTLS(t *testing.T) {
	serverTLS, clientTLS := testkit.NewCA(t).MutualTLS()
	_, strange := testkit.NewCA(t).MutualTLS()
	s := start(t, "127.0.0.1:0", always(new(response).code(1)), grpc.Creds(credentials.NewTLS(serverTLS)))
	for name, c := range map[string]struct {
		tls  *tls.Config
		want ratelimit.Failure
	}{
		"as it should": {clientTLS, ratelimit.NoFailure}, "another authority": {strange, ratelimit.Unreachable}, "plaintext": {nil, ratelimit.Unreachable},
	} {
		spec := config(s.address, nil)
		spec.GRPCTLS, spec.GRPCKey = c.tls, name
		set := newSet(t, spec)
		if a := set.GRPC(limit()).Take(set.now(), 0, caller); a.Failure != c.want {
			t.Errorf("%s: %+v", name, a)
		}
	}
}
