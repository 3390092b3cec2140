package balance

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// world is what a script works on.
type world struct {
	cfg     Config
	now     time.Duration
	names   []string
	all     []Candidate
	picker  *Picker
	changed bool
	rnd     *rand.Rand
}

func TestScripts(t *testing.T) {
	for _, path := range scripts(t) {
		t.Run(path, func(t *testing.T) {
			w := &world{cfg: Default(), changed: true, rnd: rand.New(rand.NewPCG(1, 1))}
			runScript(t, path, w.step)
		})
	}
}

func (w *world) step(c command) string {
	var out strings.Builder
	switch c.name {
	case "config":
		w.configure(c)
	case "advance":
		w.now += c.duration(c.words[0])
	case "endpoint": // endpoint NAME [unhealthy] [ejected] [weight=] [new]
		w.endpoint(c)
	case "begin":
		for range c.count {
			w.load(c).Begin(w.now)
		}
	case "end": // end NAME rtt=10ms [failed]
		for range c.count {
			w.load(c).End(w.now, c.duration(c.keys["rtt"]), c.has("failed"))
		}
	case "loads":
		for i := range w.all {
			l := w.all[i].Load
			fmt.Fprintf(&out, "%s in flight %d, latency %v\n", w.names[i], l.Inflight(), l.EWMA(w.now).Round(time.Microsecond))
		}
	case "choose":
		use, panicking := Choose(w.cfg, w.all)
		for _, m := range use {
			fmt.Fprintf(&out, "%s ", w.names[m.Index])
		}
		fmt.Fprintf(&out, "panicking=%v\n", panicking)
	case "pick": // pick x10 [avoid=a,b]: in order, or counted when many
		w.pick(c, &out)
	default:
		c.unknown()
	}
	return out.String()
}

func (w *world) configure(c command) {
	w.changed = true
	for k, v := range c.keys {
		switch k {
		case "algorithm":
			if err := w.cfg.Algorithm.UnmarshalText([]byte(v)); err != nil {
				c.t.Fatal(err)
			}
		case "slow_start":
			w.cfg.SlowStart = c.duration(v)
		case "panic_percent":
			w.cfg.PanicPercent = c.number(v)
		default:
			c.unknown()
		}
	}
}

func (w *world) endpoint(c command) {
	w.changed = true
	at := -1
	for i, name := range w.names {
		if name == c.words[0] {
			at = i
		}
	}
	if at < 0 {
		at = len(w.all)
		w.names = append(w.names, c.words[0])
		w.all = append(w.all, Candidate{Member: Member{Load: new(Load), Weight: 1, Since: -1, Index: at}})
	}
	e := &w.all[at]
	e.Healthy, e.Ejected = !c.has("unhealthy"), c.has("ejected")
	if v, ok := c.keys["weight"]; ok {
		e.Weight = uint32(c.number(v))
	}
	if c.has("new") {
		e.Since = w.now
	}
}

func (w *world) load(c command) *Load {
	c.t.Helper()
	for i, name := range w.names {
		if name == c.words[0] {
			return w.all[i].Load
		}
	}
	c.unknown()
	return nil
}

func (w *world) pick(c command, out *strings.Builder) {
	if w.changed {
		use, _ := Choose(w.cfg, w.all)
		w.picker = NewPicker(w.cfg, use)
		w.changed = false
	}
	var avoid []*Load
	for _, name := range strings.Split(c.keys["avoid"], ",") {
		for i := range w.names {
			if w.names[i] == name {
				avoid = append(avoid, w.all[i].Load)
			}
		}
	}
	counts := make([]int, len(w.names))
	var picked []string
	for range c.count {
		i := w.picker.Pick(w.now, w.rnd.Uint64(), avoid)
		if i < 0 {
			out.WriteString("none\n")
			return
		}
		name := w.picker.Member(i).Index
		counts[name]++
		picked = append(picked, w.names[name])
	}
	if c.count > 40 {
		picked = nil
		for i, n := range counts {
			picked = append(picked, fmt.Sprintf("%s=%d", w.names[i], n))
		}
	}
	out.WriteString(strings.Join(picked, " ") + "\n")
}

// TestChooseProperties: over all states of up to six endpoints, what Choose
// says holds.
func TestChooseProperties(t *testing.T) {
	for n := range 7 {
		for state := range 1 << (2 * n) {
			all := make([]Candidate, n)
			available := 0
			for i := range all {
				all[i] = Candidate{Member: Member{Index: i}, Healthy: state>>(2*i)&1 == 1, Ejected: state>>(2*i)&2 == 2}
				if all[i].available() {
					available++
				}
			}
			for _, percent := range []float64{0, 30, 50, 100} {
				cfg := Default()
				cfg.PanicPercent = percent
				use, panicking := Choose(cfg, all)
				if want := float64(available) < percent/100*float64(n); panicking != want {
					t.Fatalf("%+v at %v%%: panicking %v", all, percent, panicking)
				}
				if !panicking && len(use) != available || panicking && len(use) <= available {
					t.Fatalf("%+v at %v%%: uses %d", all, percent, len(use))
				}
				used := map[int]bool{}
				for _, m := range use {
					used[m.Index] = true
				}
				for i := range all {
					if all[i].available() && !used[i] {
						t.Fatalf("%+v at %v%%: an available one is not used", all, percent)
					}
				}
			}
		}
	}
}
