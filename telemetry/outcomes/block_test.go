package outcomes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// entry is what is written and should be read again.
type entry struct {
	Exchange Exchange
	Attempts []Attempt
	Event    *Event
}

// random makes records of all kinds.
func random(r *rand.Rand, now time.Duration) entry {
	duration := func(most time.Duration) time.Duration { return time.Duration(r.Int64N(int64(most))) }
	name := func(kind string) string { return fmt.Sprintf("%s-%d", kind, r.IntN(6)) }
	if r.IntN(8) == 0 {
		e := &Event{Kind: Kind(r.IntN(int(kindCount))), At: now - duration(time.Second), Inbound: r.IntN(2) == 0, Cluster: name("cluster"), Version: r.Uint64N(1 << 20)}
		switch e.Kind {
		case Began, Configured:
			e.Text = string(bytes.Repeat([]byte("policies: {}\n"), r.IntN(50)))
		case Endpoints:
			e.List = make([]Endpoint, r.IntN(5))
			for i := range e.List {
				e.List[i] = Endpoint{Address: name("10.0.0.1:80"), Weight: r.Uint32(), Usable: r.IntN(2) == 0, State: outlier.State(r.IntN(3)), Until: duration(time.Hour)}
			}
		case Judged:
			e.Endpoint, e.Verdict, e.Cause, e.Until, e.Random = name("ep"), outlier.Kind(r.IntN(5)), outlier.Cause(r.IntN(8)), duration(time.Hour), r.Uint64()
		case Breaker, Panic:
			e.From, e.To = breaker.State(r.IntN(3)), breaker.State(r.IntN(3))
		}
		return entry{Event: e}
	}
	x := Exchange{
		At: now - duration(10*time.Second), Cluster: name("cluster"), Route: name("route"), Method: "GET",
		Active: r.Uint32N(1000), Status: uint16(200 + r.IntN(4)*100), Reason: outcome.Reason(r.IntN(outcome.Count)), Marks: Marks(r.Uint32N(128)),
	}
	if r.IntN(2) == 0 {
		x.Status, x.Reason = 200, outcome.OK
	}
	if x.Marks&IsGRPC != 0 {
		x.GRPC = uint8(r.IntN(17))
	}
	if x.Marks&Keyed != 0 {
		x.Key = r.Uint64()
	}
	if r.IntN(3) == 0 {
		x.Deadline = 1 + duration(time.Minute)
	}
	if r.IntN(4) == 0 {
		x.Refused = 1 + duration(time.Second)
	}
	if r.IntN(4) == 0 {
		x.Waited = 1 + duration(time.Second)
	}
	attempts := make([]Attempt, r.IntN(MaxAttempts+1))
	x.Attempts = len(attempts)
	if x.Attempts == MaxAttempts {
		x.Attempts += r.IntN(3)
	}
	for i := range attempts {
		a := &attempts[i]
		a.Endpoint, a.Offset, a.Duration = name("ep"), duration(time.Second), duration(time.Second)
		a.Reason, a.Status, a.Marks = outcome.Reason(r.IntN(outcome.Count)), uint16(r.IntN(600)), AttemptMarks(r.Uint32N(16))
		switch r.IntN(3) {
		case 0:
			a.Reason, a.Status = outcome.OK, 200
		case 1:
			a.Reason, a.Status = x.Reason, x.Status
		}
		if r.IntN(2) == 0 {
			a.First = 1 + duration(time.Second)
		}
		if r.IntN(2) == 0 {
			a.Sent = duration(time.Second)
		}
		if a.Marks&Asked != 0 {
			a.Why, a.Wait = retry.Why(r.IntN(8)), duration(time.Second)
		}
	}
	x.Duration = duration(2 * time.Second)
	return entry{Exchange: x, Attempts: attempts}
}

// file writes entries into blocks of about the size.
func file(entries []entry, size int) (b []byte, ends []int, counts []int) {
	b = append([]byte(fileHead), Format)
	var k block
	now := time.Minute
	k.reset(now)
	seal := func() {
		b = k.seal(b, blockHead{epoch: 7, wall: time.Unix(1000, 0), now: now})
		ends, counts = append(ends, len(b)), append(counts, k.count)
		k.reset(now)
	}
	for i := range entries {
		if e := &entries[i]; e.Event != nil {
			k.event(e.Event)
		} else {
			k.exchange(&e.Exchange, e.Attempts)
		}
		if len(k.b) >= size {
			seal()
		}
	}
	if k.count > 0 {
		seal()
	}
	return b, ends, counts
}

// read returns all records of a file.
func read(t testing.TB, b []byte) ([]entry, Damage) {
	t.Helper()
	r := NewReader(b)
	var list []entry
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			return list, r.Damage()
		}
		if err != nil {
			t.Fatal(err)
		}
		var e entry
		if rec.Event != nil {
			ev := *rec.Event
			ev.List = slices.Clone(ev.List)
			e.Event = &ev
			if want := time.Unix(1000, 0).Add(ev.At - time.Minute); !rec.Wall.Equal(want) {
				t.Fatalf("wall time %v, want %v", rec.Wall, want)
			}
		} else {
			e.Exchange, e.Attempts = *rec.Exchange, slices.Clone(rec.Attempts)
		}
		if rec.Epoch != 7 {
			t.Fatalf("epoch %d", rec.Epoch)
		}
		list = append(list, e)
	}
}

func same(a, b *entry) bool {
	if (a.Event == nil) != (b.Event == nil) {
		return false
	}
	if a.Event != nil {
		x, y := *a.Event, *b.Event
		if !slices.Equal(x.List, y.List) {
			return false
		}
		x.List, y.List = nil, nil
		return reflect.DeepEqual(x, y)
	}
	return a.Exchange == b.Exchange && slices.Equal(a.Attempts, b.Attempts)
}

func compare(t *testing.T, got, want []entry) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("read %d records, wrote %d", len(got), len(want))
	}
	for i := range got {
		if !same(&got[i], &want[i]) {
			t.Fatalf("record %d:\nread  %+v %+v\nwrote %+v %+v", i, got[i], got[i].Event, want[i], want[i].Event)
		}
	}
}

func someEntries(seed uint64, n int) []entry {
	r := rand.New(rand.NewPCG(seed, 1))
	list := make([]entry, n)
	for i := range list {
		list[i] = random(r, time.Minute)
	}
	return list
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for seed := range uint64(50) {
		want := someEntries(seed, 200)
		b, _, _ := file(want, 1000)
		got, damage := read(t, b)
		if damage.Any() {
			t.Fatalf("seed %d: damage %v", seed, damage)
		}
		compare(t, got, want)
	}
}

func TestCutAtEveryByte(t *testing.T) {
	want := someEntries(3, 60)
	b, ends, counts := file(want, 400)
	for n := range len(b) {
		whole, blocks := 0, 0
		for blocks < len(ends) && ends[blocks] <= n {
			whole += counts[blocks]
			blocks++
		}
		got, damage := read(t, b[:n])
		compare(t, got, want[:whole])
		boundary := n <= len(fileHead) && n == 0 || n == len(fileHead)+1 || blocks > 0 && ends[blocks-1] == n
		if damage.Any() == boundary {
			t.Fatalf("cut at %d: damage %v", n, damage)
		}
	}
}

func TestADamagedByteLosesOneBlock(t *testing.T) {
	want := someEntries(4, 60)
	b, ends, counts := file(want, 400)
	for at := len(fileHead) + 1; at < len(b); at++ {
		broken := slices.Clone(b)
		broken[at] ^= 0x55
		got, damage := read(t, broken)
		hit := 0
		for ends[hit] <= at {
			hit++
		}
		from := 0
		for _, n := range counts[:hit] {
			from += n
		}
		rest := slices.Concat(want[:from], want[from+counts[hit]:])
		compare(t, got, rest)
		if damage.Blocks == 0 || damage.Bytes == 0 {
			t.Fatalf("byte %d: no damage is counted: %v", at, damage)
		}
	}
}

func TestWhatIsNoLog(t *testing.T) {
	for _, text := range []string{"service: {name: web}\n", "\x00\x01\x02", "outrigger outcomeS\n\x01 and more"} {
		if _, err := NewReader([]byte(text)).Read(); !errors.Is(err, ErrNoLog) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := NewReader(append([]byte(fileHead), Format+1)).Read(); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer file: %v", err)
	}
	if _, err := NewReader(nil).Read(); !errors.Is(err, io.EOF) {
		t.Errorf("an empty file: %v", err)
	}
}

func TestARecordTakesTensOfBytes(t *testing.T) {
	var k block
	k.reset(0)
	const n = 1000
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		d := time.Duration(2+r.IntN(20)) * time.Millisecond
		x := Exchange{At: time.Duration(i)*time.Millisecond + time.Duration(r.IntN(1e6)), Duration: d + 37*time.Microsecond, Cluster: "api", Route: "api", Method: "GET", Active: 12, Status: 200, Attempts: 1, Marks: Idempotent | Replayable}
		k.exchange(&x, []Attempt{{Endpoint: "10.0.0." + string(rune('0'+r.IntN(9))) + ":8080", Offset: 9 * time.Microsecond, Duration: d, First: d - 80*time.Microsecond, Status: 200}})
	}
	if each := len(k.b) / n; each > 40 {
		t.Errorf("an exchange with one attempt takes %d bytes", each)
	} else {
		t.Logf("an exchange with one attempt takes %d bytes", each)
	}
}

func FuzzReader(f *testing.F) {
	b, _, _ := file(someEntries(5, 12), 200)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte(fileHead))
	f.Add(slices.Concat(b[100:], b))
	var k block // damage that no checksum tells
	k.reset(0)
	k.b = append(k.b, recPlain, 0, 3, 1, 1, 200)
	k.count = 40
	f.Add(k.seal(nil, blockHead{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		n := 0
		for {
			rec, err := r.Read()
			if err != nil {
				break
			}
			if n++; n > len(b) {
				t.Fatal("more records than bytes")
			}
			if rec.Exchange != nil && (len(rec.Attempts) > MaxAttempts || int(rec.Exchange.Reason) >= outcome.Count) {
				t.Fatalf("%+v", rec)
			}
		}
		if d := r.Damage(); d.Bytes < 0 || d.Bytes > int64(len(b)) {
			t.Fatalf("%v of %d bytes", d, len(b))
		}
		// What follows damage is found: a whole block behind anything that has no mark.
		if !bytes.Contains(b, []byte(blockMark)) {
			whole, _, counts := file(someEntries(6, 5), 1<<20)
			got, _ := NewReader(append(slices.Clone(b), whole[len(fileHead)+1:]...)), 0
			for n := 0; ; n++ {
				if _, err := got.Read(); err != nil {
					if n != counts[0] && !errors.Is(err, ErrNewer) {
						t.Fatalf("%d records behind the damage, want %d: %v", n, counts[0], err)
					}
					break
				}
			}
		}
	})
}
