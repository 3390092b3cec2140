package memory

import (
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
)

// figures are what is known of the process' memory, in bytes.
type figures struct {
	resident int64 // of the process, by the system
	runtime  int64 // what Go's runtime has of the system and not returned
	free     int64 // of that, what it could return
	objects  int64 // objects that live or are garbage not found yet
	live     int64 // objects that lived at the last collection
}

// inUse is what is resident less what is free, or was garbage or new at the
// last collection. The collector runs when new objects near its goal, so that
// they are known before they matter.
func (f figures) inUse() int64 { return max(0, f.resident-f.loose()) }

func (f figures) loose() int64 { return f.free + max(0, f.objects-f.live) }

// stale reports whether so much is new since the last collection that another
// one may tell something else.
func (f figures) stale() bool { return f.objects-f.live > f.live/2 || f.live == 0 }

var samples = [...]string{
	"/memory/classes/total:bytes",
	"/memory/classes/heap/released:bytes",
	"/memory/classes/heap/free:bytes",
	"/memory/classes/heap/objects:bytes",
	"/gc/heap/live:bytes",
}

// reader returns a function that reads the figures.
func reader() func() figures {
	list := make([]metrics.Sample, len(samples))
	for i, name := range samples {
		list[i].Name = name
	}
	return func() figures {
		metrics.Read(list)
		v := func(i int) int64 {
			if list[i].Value.Kind() != metrics.KindUint64 {
				return 0
			}
			return int64(list[i].Value.Uint64())
		}
		f := figures{runtime: v(0) - v(1), free: v(2), objects: v(3), live: v(4)}
		if f.resident = resident(); f.resident == 0 {
			f.resident = f.runtime
		}
		return f
	}
}

// resident is what the system counts as the process', proc_pid_statm(5); 0 where
// it does not say.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
