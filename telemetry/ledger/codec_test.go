package ledger

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// some fills every field of an entry with something of r's choice.
func some(r *rand.Rand) Entry {
	word := func() string { return strings.Repeat("w", r.IntN(30)) }
	text := func() []byte {
		if n := r.IntN(40); n > 0 {
			return []byte(strings.Repeat("b", n))
		}
		return nil
	}
	span := func() time.Duration { return time.Duration(r.Int64N(1<<50) - 1<<20) }
	e := Entry{
		ID: text(), Start: time.Unix(r.Int64N(1<<32), r.Int64N(1e9)).UTC(), Inbound: r.IntN(2) == 0,
		Listener: word(), Plan: r.Uint64(), Route: word(), RoutePath: word(), RouteWhy: word(), Cluster: word(),
		Method: text(), Authority: text(), Path: text(), Protocol: word(), CallerID: word(), Rule: word(), WouldDeny: r.IntN(2) == 0,
		Timeout: span(), ConnectTimeout: span(), StreamIdle: span(), PerTryTimeout: span(), MaxAttempts: r.IntN(99),
		Deadline: span(), DeadlineBy: Deadline(r.IntN(int(deadlineCount))),
		Reason: outcome.Reason(r.IntN(outcome.Count)), Detail: word(), Status: uint16(r.IntN(600)), GRPC: uint8(r.IntN(17)), IsGRPC: r.IntN(2) == 0,
		Duration: span(), FirstByte: span(), BytesIn: r.Uint64(), BytesOut: r.Uint64(), UpstreamID: word(),
		Usable: r.IntN(math.MaxInt32), Total: r.IntN(99), Panicking: r.IntN(2) == 0, Priority: word(), Queued: span(), Breaker: breaker.State(r.IntN(3)), HasBreaker: r.IntN(2) == 0,
	}
	switch r.IntN(3) {
	case 0:
		e.Caller, e.Original = netip.MustParseAddrPort("127.0.0.1:4711"), netip.MustParseAddrPort("240.0.0.5:80")
	case 1:
		e.Caller = netip.MustParseAddrPort("[2001:db8::1]:1")
	}
	for range r.IntN(MaxAttempts + 2) {
		a := e.Next()
		*a = Attempt{
			Endpoint: word(), Algorithm: word(), Offset: span(), Duration: span(), Connect: span(),
			Reason: outcome.Reason(r.IntN(outcome.Count)), Status: uint16(r.IntN(600)), Hedge: r.IntN(2) == 0, Compared: r.IntN(3),
			Asked: r.IntN(2) == 0, Why: retry.Why(r.IntN(int(retry.Observed) + 1)), Wait: span(), Budget: r.NormFloat64(), HasBudget: r.IntN(2) == 0,
		}
		for i := range a.Compared {
			a.Candidates[i] = Candidate{Address: word(), Score: r.ExpFloat64(), State: word()}
		}
	}
	return e
}

func TestCodec(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		e := some(r)
		got, err := decode(e.encode())
		if e.buf = nil; err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("got %+v (%v)\nwant %+v", got, err, e)
		}
	}
}

// Whatever peers send, a record fits into a segment.
func TestLongest(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	long := strings.Repeat("x", 100_000)
	e := some(r)
	e.Attempts = nil
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.Kind() == reflect.String:
			f.SetString(long)
		case f.Kind() == reflect.Slice && f.CanSet() && f.Type() == reflect.TypeFor[[]byte]():
			f.SetBytes([]byte(long))
		case f.CanInt():
			f.SetInt(math.MaxInt32)
		case f.CanUint() && f.Kind() == reflect.Uint64:
			f.SetUint(math.MaxUint64)
		}
	}
	e.AttemptCount = 0
	for range 100 {
		c := Candidate{Address: long, State: long}
		*e.Next() = Attempt{
			Endpoint: long, Algorithm: long, Candidates: [2]Candidate{c, c}, Compared: 2,
			Offset: math.MinInt64, Duration: math.MinInt64, Connect: math.MinInt64, Wait: math.MinInt64, Status: math.MaxUint16,
		}
	}
	b := e.encode()
	if len(b)+lengthBytes > segmentBytes {
		t.Errorf("the longest record has %d bytes, which is more than a segment", len(b))
	}
	got, err := decode(b)
	if err != nil || len(got.ID) != maxText || len(got.Attempts) != MaxAttempts || got.AttemptCount != 100 || len(got.Attempts[7].Endpoint) != maxWord {
		t.Errorf("decoded: %v, %d attempts", err, len(got.Attempts))
	}
}

// Every record that is cut short is refused.
func TestCut(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		e := some(r)
		b := e.encode()
		for n := range b {
			if _, err := decode(b[:n]); err == nil {
				t.Fatalf("%d of %d bytes were taken for a record", n, len(b))
			}
		}
		if _, err := decode(append(b, 0)); err == nil {
			t.Fatal("a byte too many was taken")
		}
	}
}

// FuzzDecode: whatever is decoded is encoded again, and that decoded the same.
func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 8 {
		e := some(r)
		f.Add(append([]byte(nil), e.encode()...))
	}
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decode(b)
		if err != nil {
			return
		}
		first := append([]byte(nil), e.encode()...)
		again, err := decode(first)
		if err != nil {
			t.Fatalf("encoded again: %v", err)
		}
		if second := again.encode(); string(second) != string(first) {
			t.Fatalf("encoded twice:\n%x\n%x", first, second)
		}
	})
}
