package wire

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
)

func TestPut(t *testing.T) {
	if len(GetSmall()) != Small || len(GetLarge()) != Large {
		t.Fatal("wrong sizes")
	}
	for _, n := range []int{0, 1, Small - 1, Small + 1, Large - 1, Large + 1} {
		Put(make([]byte, n))
	}
	Put(nil)
	Put(GetLarge()[:0])
	for range 50 {
		if b := GetSmall(); len(b) != Small || cap(b) != Small {
			t.Fatalf("got a buffer of %d/%d bytes", len(b), cap(b))
		}
		if b := GetLarge(); len(b) != Large || cap(b) != Large {
			t.Fatalf("got a buffer of %d/%d bytes", len(b), cap(b))
		}
	}
}

// The buffer is compared with a plain slice under random operations.
func TestBufferAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	c := &Conn{fd: noFD}
	var model []byte
	next := byte(0)
	for step := range 10_000 {
		switch r.IntN(5) {
		case 0, 1:
			most := []int{Small, Small + 1, Large}[r.IntN(3)]
			free := len(c.buf) - c.w
			ok := c.Room(most)
			if !ok && len(model) < min(most, Small) {
				t.Fatalf("step %d: no room for %d bytes of %d", step, len(model), most)
			}
			if !ok && free > 0 {
				t.Fatalf("step %d: no room although %d bytes were free", step, free)
			}
			if ok && c.w == len(c.buf) {
				t.Fatalf("step %d: room, but none", step)
			}
			if ok {
				for range min(r.IntN(3*Small), len(c.buf)-c.w) {
					c.buf[c.w] = next
					c.w++
					model = append(model, next)
					next++
				}
			}
		case 2:
			n := r.IntN(len(model) + 1)
			if r.IntN(4) == 0 {
				n = len(model)
			}
			c.Consume(n)
			model = model[n:]
		case 3:
			c.Release()
			if len(model) == 0 && c.buf != nil {
				t.Fatalf("step %d: an empty buffer is kept", step)
			}
		case 4:
			c.Widen()
			if len(model) == 0 && len(c.buf) != Large {
				t.Fatalf("step %d: not wide", step)
			}
		}
		if !bytes.Equal(c.Buffered(), model) {
			t.Fatalf("step %d: %d bytes buffered, want %d", step, len(c.Buffered()), len(model))
		}
	}
}

func TestFillWithAFullBuffer(t *testing.T) {
	c := &Conn{fd: noFD}
	c.Widen()
	c.w = Large
	if err := c.Fill(); err != io.ErrShortBuffer {
		t.Errorf("got %v, want %v", err, io.ErrShortBuffer)
	}
	c.Consume(1)
	if !c.Room(Large) || c.w != Large-1 {
		t.Errorf("no room after a byte was consumed: %d", c.w)
	}
}
