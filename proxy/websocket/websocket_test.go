package websocket

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// end is where a frame ends, and what it was.
type end struct {
	at int
	op Opcode
}

// model finds the ends of all frames of a whole stream as RFC 6455 section 5.2
// draws them, and whether the stream ends between frames.
func model(b []byte) (ends []end, between bool) {
	at := 0
	for at < len(b) {
		head := b[at:]
		if len(head) < 2 {
			return ends, false
		}
		n, size := 2, uint64(head[1]&0x7f)
		switch size {
		case 126:
			if len(head) < 4 {
				return ends, false
			}
			n, size = 4, uint64(binary.BigEndian.Uint16(head[2:]))
		case 127:
			if len(head) < 10 {
				return ends, false
			}
			n, size = 10, binary.BigEndian.Uint64(head[2:])
		}
		if head[1]&0x80 != 0 {
			n += 4
		}
		if len(head) < n || uint64(len(head)-n) < size {
			return ends, false
		}
		at += n + int(size)
		ends = append(ends, end{at, Opcode(head[0] & 0xf)})
	}
	return ends, true
}

// follow gives b to a follower in pieces that split cuts.
func follow(t *testing.T, b []byte, split func(left int) int) (ends []end, between bool) {
	t.Helper()
	var f Follower
	for at := 0; at < len(b); {
		p := b[at : at+split(len(b)-at)]
		for len(p) > 0 {
			n, op, ended := f.Next(p)
			if n <= 0 || n > len(p) || !ended && n < len(p) {
				t.Fatalf("took %d of %d bytes, ended: %v", n, len(p), ended)
			}
			p, at = p[n:], at+n
			if ended {
				ends = append(ends, end{at, op})
			}
			if ended && !f.Between() {
				t.Fatalf("a frame ended at %d, and the stream is not between frames", at)
			}
		}
	}
	return ends, f.Between()
}

// frame appends a frame with a payload of n bytes.
func frame(b []byte, first byte, n int, masked bool, lengthBytes int) []byte {
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	b = append(b, first)
	switch lengthBytes {
	case 0:
		b = append(b, bit|byte(n))
	case 2:
		b = binary.BigEndian.AppendUint16(append(b, bit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, bit|127), uint64(n))
	}
	if masked {
		b = append(b, 1, 2, 3, 4)
	}
	return append(b, make([]byte, n)...)
}

func compare(t *testing.T, b []byte, split func(int) int) {
	t.Helper()
	ends, between := follow(t, b, split)
	wantEnds, wantBetween := model(b)
	if !slices.Equal(ends, wantEnds) || between != wantBetween {
		t.Fatalf("%x\nends %v, between frames %v\nwant %v, %v", b[:min(len(b), 100)], ends, between, wantEnds, wantBetween)
	}
}

func TestFollower(t *testing.T) {
	var all []byte
	for _, masked := range []bool{false, true} {
		for _, n := range []int{0, 1, 125} {
			all = frame(all, 0x82, n, masked, 0)
		}
		for _, n := range []int{0, 126, 127, 65535} {
			all = frame(all, 0x01, n, masked, 2) // begins a fragmented message
		}
		for _, n := range []int{0, 1, 65536} {
			all = frame(all, 0x80, n, masked, 8)
		}
		all = frame(all, 0x88, 2, masked, 0)
	}
	for _, tail := range []int{0, 1, 3} {
		b := all[:len(all)-tail]
		compare(t, b, func(left int) int { return left })
		compare(t, b, func(int) int { return 1 })
		r := rand.New(rand.NewPCG(1, uint64(tail)))
		for range 100 {
			compare(t, b, func(left int) int { return 1 + r.IntN(min(left, 1+r.IntN(100_000))) })
		}
	}
}

// TestEndless: a length that no frame can have is followed without an end.
func TestEndless(t *testing.T) {
	for _, masked := range []byte{0, 0x80} {
		var f Follower
		if n, _, ended := f.Next([]byte{0x82, masked | 127, 255, 255, 255, 255, 255, 255, 255, 255}); n != 10 || ended {
			t.Fatalf("took %d bytes, ended %v", n, ended)
		}
		for range 100 {
			if n, _, ended := f.Next(make([]byte, 1<<16)); n != 1<<16 || ended || f.Between() {
				t.Fatalf("took %d bytes, ended %v", n, ended)
			}
		}
	}
}

func TestAppendClose(t *testing.T) {
	if got := AppendClose([]byte("x"), GoingAway, "idle", nil); string(got) != "x\x88\x06\x03\xe9idle" {
		t.Errorf("%q", got)
	}
	key := [4]byte{1, 2, 3, 4}
	got := AppendClose(nil, GoingAway, "idle", &key)
	if string(got[:6]) != "\x88\x86\x01\x02\x03\x04" || string(got[6:]) != "\x02\xeb"+string([]byte{'i' ^ 3, 'd' ^ 4, 'l' ^ 1, 'e' ^ 2}) {
		t.Errorf("%q", got)
	}
	for _, k := range []*[4]byte{nil, &key} {
		b := AppendClose(nil, GoingAway, strings.Repeat("a", 1000), k)
		ends, between := model(b)
		if len(ends) != 1 || ends[0].op != Close || !between || b[1]&0x7f != 125 {
			t.Errorf("%d bytes with ends %v", len(b), ends)
		}
	}
}

func TestConfig(t *testing.T) {
	var got []string
	Config{IdleTimeout: -1, MaxLifetime: -time.Second}.Validate(func(field, _ string) { got = append(got, field) })
	if strings.Join(got, " ") != "idle_timeout max_lifetime" {
		t.Errorf("mistakes in %q", got)
	}
	Default().Validate(func(field, problem string) { t.Errorf("%s %s", field, problem) })
}

func TestFollowerDoesNotAllocate(t *testing.T) {
	b := bytes.Repeat(frame(nil, 0x82, 300, true, 2), 10)
	var f Follower
	if n := testing.AllocsPerRun(100, func() {
		for p := b; len(p) > 0; {
			n, _, _ := f.Next(p)
			p = p[n:]
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzFollower compares the follower with the model, whatever the bytes and
// however they are split.
func FuzzFollower(f *testing.F) {
	f.Add([]byte("\x81\x05Hello"), uint64(0))
	f.Add([]byte("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), uint64(1))
	f.Add([]byte("\x01\x03Hel\x89\x00\x80\x02lo\x88\x02\x03\xe9"), uint64(2))
	f.Add(frame(nil, 0x82, 256, true, 2), uint64(3))
	f.Add(frame(frame(nil, 0x82, 3, false, 8), 0x88, 0, true, 0), uint64(4))
	f.Add([]byte("\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xffabc"), uint64(5))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		compare(t, b, func(left int) int { return 1 + r.IntN(left) })
		compare(t, b, func(int) int { return 1 })
	})
}

func BenchmarkFollower(b *testing.B) {
	for name, size := range map[string]int{"small frames": 100, "large frames": 60_000} {
		b.Run(name, func(b *testing.B) {
			p := frame(nil, 0x82, size, true, 2)
			p = bytes.Repeat(p, max(1, 60_000/len(p)))
			b.SetBytes(int64(len(p)))
			var f Follower
			for b.Loop() {
				for p := p; len(p) > 0; {
					n, _, _ := f.Next(p)
					p = p[n:]
				}
			}
		})
	}
}
