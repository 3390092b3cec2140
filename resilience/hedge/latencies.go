package hedge

import "sync/atomic"

// mostMethods is how many gRPC methods of a destination have latencies of their
// own: the first that were answered.
const mostMethods = 16

// Latencies are those of a destination: of all requests, and by gRPC method. Lock
// free and bounded; the zero value is ready.
type Latencies struct {
	All     Latency
	methods [mostMethods]method
}

type method struct {
	key atomic.Uint64 // 0: free
	lat atomic.Pointer[Latency]
}

// Method returns the latencies of the method with that hash, or nil.
func (l *Latencies) Method(key uint64) *Latency {
	key |= 1
	for i := range l.methods {
		switch l.methods[i].key.Load() {
		case key:
			return l.methods[i].lat.Load()
		case 0:
			return nil
		}
	}
	return nil
}

// Learn is Method for one that an endpoint has answered: it has latencies of its
// own from now on, if there is room. Two of the same hash share them.
func (l *Latencies) Learn(key uint64) *Latency {
	key |= 1
	for i := range l.methods {
		m := &l.methods[i]
		if m.key.Load() == 0 && m.key.CompareAndSwap(0, key) {
			lat := new(Latency)
			m.lat.Store(lat)
			return lat
		}
		if m.key.Load() == key {
			return m.lat.Load() // nil for the moment in which it is being made
		}
	}
	return nil
}
