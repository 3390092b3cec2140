package ledger

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

func newRing(t testing.TB, change func(*Config)) *Ring {
	t.Helper()
	c := Default()
	c.SizeBytes = 4 * segmentBytes
	if change != nil {
		change(&c)
	}
	r := New(c, 0)
	if r == nil {
		t.Fatal("no ring")
	}
	return r
}

func put(r *Ring, id string, reason outcome.Reason, pad int) {
	e := r.Draft()
	e.ID, e.Reason, e.Path = []byte(id), reason, []byte(strings.Repeat("p", pad))
	r.Put(e)
}

func ids(list []Entry) (s []string) {
	for i := range list {
		s = append(s, string(list[i].ID))
	}
	return s
}

func TestKeeps(t *testing.T) {
	for _, c := range []struct {
		name    string
		sample  float64
		reason  outcome.Reason
		failed  bool
		tries   int
		first   time.Duration
		want    bool
		noSlow  bool
		missing bool
	}{
		{name: "good", tries: 1},
		{name: "good, all", sample: 100, tries: 1, want: true},
		{name: "failed", reason: outcome.UpstreamReset, tries: 1, want: true},
		{name: "refused", reason: outcome.Denied, want: true},
		{name: "failed call", failed: true, tries: 1, want: true},
		{name: "retried", tries: 2, want: true},
		{name: "slow", tries: 1, first: time.Second, want: true},
		{name: "nearly slow", tries: 1, first: time.Second - 1},
		{name: "nothing is slow", tries: 1, first: time.Hour, noSlow: true},
		{name: "no ring", reason: outcome.Denied, missing: true},
	} {
		r := newRing(t, func(cfg *Config) {
			cfg.SamplePercent = c.sample
			if c.noSlow {
				cfg.Slow = 0
			}
		})
		if c.missing {
			r = nil
		}
		if got := r.Keeps(c.reason, c.failed, c.tries, c.first); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	r, n := newRing(t, func(c *Config) { c.SamplePercent = 50 }), 0
	for range 1000 {
		if r.Keeps(outcome.OK, false, 1, 0) {
			n++
		}
	}
	if n < 300 || n > 700 {
		t.Errorf("a sample of 50 %% kept %d of 1000", n)
	}
}

func TestSearch(t *testing.T) {
	r := newRing(t, nil)
	for i := range 10 {
		reason := outcome.OK
		if i%3 == 0 {
			reason = outcome.NoEndpoints
		}
		put(r, fmt.Sprint("id", i), reason, 10)
	}
	put(r, "id1", outcome.OK, 0) // the other direction
	for what, c := range map[string][2]string{
		"last":      {fmt.Sprint(ids(r.Last(3, false))), "[id1 id9 id8]"},
		"failures":  {fmt.Sprint(ids(r.Last(3, true))), "[id9 id6 id3]"},
		"all":       {fmt.Sprint(len(r.Last(100, false))), "11"},
		"none":      {fmt.Sprint(ids(r.Last(0, false))), "[]"},
		"found":     {fmt.Sprint(ids(r.Find([]byte("id1"), 5))), "[id1 id1]"},
		"found one": {fmt.Sprint(ids(r.Find([]byte("id1"), 1))), "[id1]"},
		"prefix":    {fmt.Sprint(ids(r.Find([]byte("id"), 5))), "[]"},
		"empty":     {fmt.Sprint(ids(r.Find(nil, 5))), "[]"},
	} {
		if c[0] != c[1] {
			t.Errorf("%s: %s, want %s", what, c[0], c[1])
		}
	}
	var none *Ring
	if none.Last(1, false) != nil || none.Find([]byte("x"), 1) != nil || none.Records() != 0 || none.Bytes() != 0 {
		t.Error("a nil ring has something")
	}
}

// What is kept are always the last ones without a gap, and the bytes are bounded.
func TestBounded(t *testing.T) {
	r := newRing(t, nil)
	rnd := rand.New(rand.NewPCG(1, 1))
	const most = 4 * segmentBytes
	for i := range 20_000 {
		put(r, fmt.Sprint(i), outcome.OK, rnd.IntN(2*maxText))
		if r.Bytes() > most {
			t.Fatalf("%d bytes after %d records", r.Bytes(), i+1)
		}
		if i%997 != 0 {
			continue
		}
		held := 0
		for _, s := range r.segments {
			if cap(s.b) > segmentBytes {
				t.Fatalf("a segment has %d bytes", cap(s.b))
			}
			held += len(records(s.b))
		}
		list := r.Last(math.MaxInt, false)
		if len(list) != held {
			t.Fatalf("%d records are told, %d are held", len(list), held)
		}
		for k := range list {
			if want := fmt.Sprint(i - k); string(list[k].ID) != want {
				t.Fatalf("record %d from the end is %s, want %s", k, list[k].ID, want)
			}
		}
	}
	if r.Records() != 20_000 || r.Bytes() != most {
		t.Errorf("%d records, %d bytes", r.Records(), r.Bytes())
	}
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		size int
		most int64
		want int
	}{{4 << 20, 0, 128}, {4 << 20, 3 << 20, 96}, {0, 0, 0}, {4 << 20, 100, 0}, {LeastBytes, 0, 2}} {
		got := 0
		if r := New(Config{SizeBytes: c.size}, c.most); r != nil {
			got = r.most
		}
		if got != c.want {
			t.Errorf("%+v: %d segments", c, got)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Default(), ""},
		{Config{}, ""},
		{Config{SizeBytes: LeastBytes}, ""},
		{Config{SizeBytes: LeastBytes - 1}, "size_bytes"},
		{Config{SizeBytes: -1}, "size_bytes"},
		{Config{SizeBytes: MostBytes + 1}, "size_bytes"},
		{Config{SamplePercent: 101}, "sample_percent"},
		{Config{SamplePercent: math.NaN()}, "sample_percent"},
		{Config{Slow: -1}, "slow"},
	} {
		got := ""
		c.cfg.Validate(func(field, _ string) { got += field })
		if got != c.want {
			t.Errorf("%+v: %q, want %q", c.cfg, got, c.want)
		}
	}
}

func TestConcurrent(t *testing.T) {
	r := newRing(t, nil)
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 2000 {
				put(r, fmt.Sprintf("%d-%d", g, i), outcome.Denied, i%maxText)
			}
		})
	}
	for range 200 {
		list := r.Last(50, true)
		for i := range list {
			if list[i].Reason != outcome.Denied || len(list[i].ID) < 3 {
				t.Errorf("read %+v", list[i])
			}
		}
	}
	all.Wait()
	if list := r.Last(1, false); len(list) != 1 || !strings.HasSuffix(string(list[0].ID), "-1999") {
		t.Errorf("the last record is %+v", list)
	}
}

func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newRing(t, nil)
	id, path := []byte("0123456789abcdef"), []byte("/pay")
	one := func() {
		if !r.Keeps(outcome.UpstreamReset, false, 1, 0) {
			t.Fatal("not kept")
		}
		e := r.Draft()
		e.ID, e.Path, e.Listener = id, path, "outbound:api"
		for range 3 {
			e.Next().Endpoint = "127.0.0.1:8080"
		}
		r.Put(e)
	}
	for range 2000 {
		one() // until every segment is there
	}
	if n := testing.AllocsPerRun(1000, one); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPut(b *testing.B) {
	r := newRing(b, nil)
	id := []byte("0123456789abcdef")
	for b.Loop() {
		e := r.Draft()
		e.ID, e.Listener, e.Cluster = id, "outbound:api", "api"
		e.Next().Endpoint = "127.0.0.1:8080"
		r.Put(e)
	}
}
