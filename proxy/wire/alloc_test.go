package wire

import (
	"io"
	"math"
	"runtime"
	"testing"
	"time"
)

// perTrip returns the allocations of the whole process for each call of trip:
// the least of some rounds, since what happens now and then, such as a pool that
// the garbage collector emptied or a timer of the runtime, must not count.
func perTrip(t *testing.T, trip func() error) float64 {
	t.Helper()
	const rounds, trips = 4, 1000
	least := uint64(math.MaxUint64)
	for round := range rounds {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range trips {
			if err := trip(); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		if round > 0 { // the first fills the pools
			least = min(least, after.Mallocs-before.Mallocs)
		}
	}
	return float64(least) / trips
}

// tolerance is 50 allocations in 1000 trips: the refilling of emptied pools.
const tolerance = 0.05

// perRecord is what crypto/tls allocates to read a record: one reader for its
// header, which brings a record of up to 512 bytes whole, and one for the rest.
func perRecord(m mode, long bool) float64 {
	switch {
	case m == plain:
		return 0
	case long:
		return 2
	}
	return 1
}

func TestRoundTripsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	run(t, func(t *testing.T, m mode) {
		sw := NewSweeper(time.Now())
		out, in := make([]byte, message), make([]byte, message)

		c, p := connect(t, m, sw)
		served := async(func() error { return c.Await(echo(c)) })
		n := perTrip(t, func() error {
			if _, err := p.Write(out); err != nil {
				return err
			}
			_, err := io.ReadFull(p, in)
			return err
		})
		t.Logf("Await, both ends: %.3f allocations a round trip", n)
		most := 2*perRecord(m, false) + tolerance // each end reads a record
		if n > most {
			t.Errorf("Await: %.3f allocations a round trip, want %.2f", n, most)
		}
		_ = p.Close()
		want(t, served, io.EOF)

		c, p = connect(t, m, sw)
		answered := async(func() error {
			b := make([]byte, message)
			for {
				if _, err := io.ReadFull(p, b); err != nil {
					return err
				}
				if _, err := p.Write(b); err != nil {
					return err
				}
			}
		})
		n = perTrip(t, func() error {
			c.SetDeadline(sw.Now() + time.Minute)
			if err := c.WriteRead(out); err != nil {
				return err
			}
			c.Consume(len(c.Buffered()))
			c.Release()
			if !c.Quiet() {
				return io.ErrUnexpectedEOF
			}
			return nil
		})
		t.Logf("WriteRead, both ends: %.3f allocations a round trip", n)
		if n > most {
			t.Errorf("WriteRead: %.3f allocations a round trip, want %.2f", n, most)
		}
		_ = c.Close()
		<-answered
	})
}

func TestBodiesDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		const size = 48 << 10
		out, in := make([]byte, size), make([]byte, size)
		ask := make(chan bool)
		sent := async(func() error {
			for range ask {
				if _, err := p.Write(out); err != nil {
					return err
				}
				if _, err := io.ReadFull(p, in); err != nil {
					return err
				}
			}
			return nil
		})
		n := perTrip(t, func() error {
			ask <- true
			for got := 0; got < size; {
				c.Widen()
				if err := c.Fill(); err != nil {
					return err
				}
				got += len(c.Buffered())
				c.Consume(len(c.Buffered()))
			}
			_, err := c.Write(out)
			return err
		})
		t.Logf("%d bytes each way, both ends: %.3f allocations", size, n)
		// Past the first 128 KiB crypto/tls fills its records.
		const records = 2 * size / (16 << 10)
		if most := records*perRecord(m, true) + tolerance; n > most {
			t.Errorf("%.3f allocations, want %.2f", n, most)
		}
		close(ask)
		want(t, sent, nil)
	})
}
