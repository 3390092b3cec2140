package telemetry

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of what is kept of gRPC methods, for each cluster.
const (
	maxMethods    = 256
	methodSlots   = 1024 // a power of two, so sparse that a search is short
	maxMethodName = 200
	methodOthers  = "_other_"
	// unimplemented is the status of a method that is not there: it makes no series.
	unimplemented = 12
	// statusCount is the number of gRPC statuses; one more takes all others.
	statusCount = 17
)

// methods are the gRPC methods of a cluster that were met. Those of the table are
// found without a lock; it only grows.
type methods struct {
	seed  maphash.Seed
	slots [methodSlots]atomic.Pointer[method]

	others *method // counts all that have no place of their own

	mu   sync.Mutex // of additions
	list []*method  // in the order in which they were met
}

// method counts the calls of one method.
type method struct {
	path          string
	service, name string
	shards        []methodShard
}

type methodShard struct {
	statuses [statusCount + 1]Counter
	duration histogram
	_        pad
}

func newMethods(shards int) *methods {
	return &methods{
		seed:   maphash.MakeSeed(),
		others: &method{service: methodOthers, name: methodOthers, shards: make([]methodShard, shards)},
	}
}

// find returns the method with the path, or nil.
func (t *methods) find(path []byte) *method {
	for i := maphash.Bytes(t.seed, path); ; i++ {
		m := t.slots[i%methodSlots].Load()
		if m == nil || m.path == string(path) {
			return m
		}
	}
}

// add returns the method with the path, which is new if there is room.
func (t *methods) add(path []byte) *method {
	service, name, ok := splitMethod(path)
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.find(path); m != nil {
		return m
	}
	if !ok || len(t.list) >= maxMethods {
		return t.others
	}
	m := &method{path: string(path), service: label(string(service)), name: label(string(name)), shards: make([]methodShard, len(t.others.shards))}
	t.list = append(t.list, m)
	i := maphash.Bytes(t.seed, path)
	for t.slots[i%methodSlots].Load() != nil {
		i++
	}
	t.slots[i%methodSlots].Store(m)
	return m
}

// splitMethod splits "/package.Service/Method". It refuses what gRPC's own
// compilers would not make, so that a label is nothing else.
func splitMethod(path []byte) (service, name []byte, ok bool) {
	if len(path) > maxMethodName || len(path) == 0 || path[0] != '/' {
		return nil, nil, false
	}
	service, name, ok = bytes.Cut(path[1:], []byte("/"))
	if !ok || len(service) == 0 || len(name) == 0 {
		return nil, nil, false
	}
	for i, c := range path[1:] {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '.', c == '-', i == len(service):
		default:
			return nil, nil, false
		}
	}
	return service, name, true
}

// Call counts a gRPC call that ended: its path, the status the caller got, and how
// long it took. shard is that of Begin. A method gets series of its own when an
// endpoint has answered it and knows it; others are counted together, and so are
// those beyond the first 256. It allocates only for a new one.
func (c *Cluster) Call(shard uint32, path []byte, status uint8, answered bool, took time.Duration) {
	t := c.methods.Load()
	if t == nil {
		t = newMethods(int(c.mask) + 1)
		if !c.methods.CompareAndSwap(nil, t) {
			t = c.methods.Load()
		}
	}
	m := t.find(path)
	if m == nil {
		if m = t.others; answered && status != unimplemented {
			m = t.add(path)
		}
	}
	s := &m.shards[shard&c.mask]
	s.statuses[min(status, statusCount)].Inc()
	s.duration.observe(took)
}

// met returns the methods that have a place, and behind them the others.
func (t *methods) met() []*method {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(slices.Clip(t.list), t.others)
}

func (t *methods) collect(s *scrape) {
	for i, m := range t.met() {
		if m == t.others {
			i = maxMethods // its place does not move
		}
		var d Distribution
		for status := range statusCount + 1 {
			n := uint64(0)
			for k := range m.shards {
				n += m.shards[k].statuses[status].Value()
			}
			word := "other"
			if status < statusCount {
				word = strconv.Itoa(status)
			}
			s.cells(mCalls, uint16(i*(statusCount+1)+status), n, m.service, m.name, word)
		}
		for k := range m.shards {
			m.shards[k].duration.addTo(&d)
		}
		if d.Count() > 0 {
			s.distribution(mCallDuration, uint16(i), &d, m.service, m.name)
		}
	}
}
