package outcomes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// rig is a log on a clock of its own.
type rig struct {
	*Log
	path string
	now  atomic.Int64
	wall atomic.Int64
	said bytes.Buffer
}

func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	r := &rig{}
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "outcomes")
	}
	r.path = cfg.Path
	r.now.Store(int64(time.Hour))
	r.wall.Store(time.Unix(5000, 0).UnixNano())
	var err error
	r.Log, err = New(Options{
		Config: cfg, Log: slog.New(slog.NewTextHandler(&r.said, nil)),
		Now:  func() time.Duration { return time.Duration(r.now.Load()) },
		Wall: func() time.Time { return time.Unix(0, r.wall.Load()) },
		State: func(add func(Event)) {
			add(Event{Kind: Began, At: time.Duration(r.now.Load()), Text: "test"})
			add(Event{Kind: Configured, At: time.Duration(r.now.Load()), Text: "service: {name: web}"})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.fileMu.Lock()
		defer r.fileMu.Unlock()
		if r.file != nil {
			r.file.close()
		}
	})
	return r
}

func (r *rig) step(d time.Duration) { r.now.Add(int64(d)); r.wall.Add(int64(d)) }

// write writes out what waits, as Run does.
func (r *rig) write() {
	r.fileMu.Lock()
	defer r.fileMu.Unlock()
	r.flush()
}

func (r *rig) put(n int) {
	for range n {
		at := time.Duration(r.now.Load())
		r.Put(&Exchange{At: at, Duration: 1, Cluster: "api", Status: 200, Attempts: 1}, []Attempt{{Endpoint: "10.0.0.1:80", Duration: 1, Status: 200}})
	}
}

// all reads every file of the log and counts exchanges and events.
func (r *rig) all(t *testing.T) (exchanges, events int, damage Damage) {
	t.Helper()
	names, err := Files(r.path)
	if err != nil {
		t.Fatal(err)
	}
	rd := NewReader(nil)
	for i, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rd.Open(b)
		first := true
		for {
			rec, err := rd.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if first && len(b) > 0 && (rec.Event == nil || rec.Event.Kind != Began) {
				t.Errorf("file %d does not begin with how things stand", i)
			}
			first = false
			if rec.Event != nil {
				events++
			} else {
				exchanges++
			}
		}
	}
	return exchanges, events, rd.Damage()
}

func TestPutIsWritten(t *testing.T) {
	r := newRig(t, Default())
	r.put(10)
	r.Event(Event{Kind: Panic, At: time.Duration(r.now.Load()), Cluster: "api", To: 1})
	r.write()
	if x, e, d := r.all(t); x != 10 || e != 3 || d.Any() {
		t.Errorf("%d exchanges, %d events, %v", x, e, d)
	}
	if s := r.Stats(); s.Records != 13 || s.Dropped != 0 || s.Bytes == 0 || s.Size < int64(s.Bytes) {
		t.Errorf("%+v", s)
	}
}

func TestOffKeepsNothingAndNilIsOff(t *testing.T) {
	l, err := New(Options{Config: Config{RotateBytes: LeastRotateBytes}, Now: func() time.Duration { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	l.Put(&Exchange{}, nil)
	l.Event(Event{})
	if l.On() || l.front.exchanges != nil || l.front.events != nil {
		t.Error("a log without a path keeps something")
	}
	var none *Log
	none.Put(&Exchange{}, nil)
	none.Event(Event{})
	if none.On() || none.Stats() != (Stats{}) {
		t.Error("a nil log keeps something")
	}
}

func TestRunWritesAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Default())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		r.put(3)
		time.Sleep(2 * flushInterval) // of synctest's clock
		synctest.Wait()
		if x, _, _ := r.all(t); x != 3 {
			t.Errorf("%d exchanges after an interval, want 3", x)
		}
		r.put(2)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if x, e, _ := r.all(t); x != 5 || e != 3 {
			t.Errorf("%d exchanges and %d events at the end, want 5 and 3", x, e)
		}
		r.put(1)
		if r.On() || r.Stats().Dropped != 0 {
			t.Error("a log that has ended takes more")
		}
	})
}

func TestWhatDoesNotFitIsCounted(t *testing.T) {
	r := newRig(t, Default())
	r.put(waitExchanges + 5)
	for range waitEvents + 2 {
		r.Event(Event{Kind: Panic})
	}
	if d := r.Stats().Dropped; d != 7 {
		t.Errorf("%d dropped, want 7", d)
	}
	r.write()
	r.put(1)
	r.write()
	if x, _, d := r.all(t); x != waitExchanges+1 || d.Dropped != 7 || d.Blocks != 0 {
		t.Errorf("%d exchanges, %v", x, d)
	}
}

func TestRotationKeepsWithinTheBound(t *testing.T) {
	cfg := Config{RotateBytes: LeastRotateBytes, MaxBytes: 3 * LeastRotateBytes}
	r := newRig(t, cfg)
	most := int64(0)
	for range 100 {
		r.step(time.Millisecond)
		r.put(waitExchanges)
		r.write()
		size := int64(0)
		names, _ := Files(r.path)
		for _, n := range names {
			info, err := os.Stat(n)
			if err != nil {
				t.Fatal(err)
			}
			size += info.Size()
			if info.Size() > cfg.RotateBytes {
				t.Fatalf("%s has %d bytes", n, info.Size())
			}
		}
		if most = max(most, size); size > cfg.MaxBytes {
			t.Fatalf("the files have %d bytes, more than %d", size, cfg.MaxBytes)
		}
		if s := r.Stats().Size; s != size {
			t.Fatalf("size %d, is %d", s, size)
		}
	}
	if written := r.Stats().Bytes; written < uint64(cfg.MaxBytes) || most < 2*cfg.RotateBytes {
		t.Fatalf("%d bytes written, %d kept: nothing was tested", written, most)
	}
	if _, _, d := r.all(t); d.Any() {
		t.Errorf("%v", d)
	}
}

func TestRotationByAgeAndAtTheStart(t *testing.T) {
	cfg := Default()
	cfg.RotateAge = time.Minute
	r := newRig(t, cfg)
	for range 3 {
		r.put(1)
		r.write()
		r.step(61 * time.Second)
	}
	if names, _ := Files(r.path); len(names) != 3 {
		t.Errorf("files %v, want 3", names)
	}
	r.fileMu.Lock()
	r.file.close()
	r.file = nil
	r.fileMu.Unlock()
	cfg.Path = r.path
	next := newRig(t, cfg)
	next.put(1)
	next.write()
	if names, _ := Files(r.path); len(names) != 4 {
		t.Errorf("files %v after another start, want 4", names)
	}
	if x, _, _ := next.all(t); x != 4 {
		t.Errorf("%d exchanges, want 4", x)
	}
}

func TestClockJumpsDoNotMoveRecords(t *testing.T) {
	r := newRig(t, Default())
	var want []time.Duration
	for i := range 5 {
		want = append(want, time.Duration(r.now.Load()))
		r.put(1)
		r.write()
		r.step(time.Second)
		r.wall.Add(int64(time.Duration(i-2) * 24 * time.Hour)) // back and forth
	}
	b, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	rd := NewReader(b)
	var got []time.Duration
	for {
		rec, err := rd.Read()
		if err != nil {
			break
		}
		if rec.Exchange != nil {
			got = append(got, rec.Exchange.At)
		}
	}
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("times %v, want %v", got, want)
		}
	}
}

func TestAFullDiskIsCountedAndSaidOnce(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full:", err)
	}
	r := newRig(t, Default())
	r.put(2)
	r.write()
	good := r.file.f
	r.file.f = full
	for range 3 {
		r.put(4)
		r.write()
	}
	if d := r.Stats().Dropped; d != 12 {
		t.Errorf("%d dropped, want 12", d)
	}
	if n := strings.Count(r.said.String(), "outcomes_failed"); n != 1 {
		t.Errorf("said %d times: %s", n, &r.said)
	}
	_ = full.Close()
	r.file.f = good
	r.put(1)
	r.write()
	if !strings.Contains(r.said.String(), "outcomes_written") {
		t.Errorf("that it works again is not said: %s", &r.said)
	}
	if x, _, d := r.all(t); x != 3 || d.Dropped != 12 || d.Blocks != 0 {
		t.Errorf("%d exchanges, %v", x, d)
	}
}

func TestConfigure(t *testing.T) {
	r := newRig(t, Default())
	r.put(1)
	r.write()
	dir := t.TempDir()
	if err := r.Configure(Config{Path: filepath.Join(dir, "none", "x"), RotateBytes: LeastRotateBytes, MaxBytes: 2 * LeastRotateBytes}); err == nil {
		t.Error("a directory that is not there was taken")
	}
	if !r.On() {
		t.Fatal("a refused change switched the log off")
	}
	if _, err := New(Options{Config: Config{Path: r.path}, Now: func() time.Duration { return 0 }}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("two logs on one path: %v", err)
	}
	if err := r.Configure(Config{}); err != nil || r.On() {
		t.Errorf("switching off: %v", err)
	}
	next := Default()
	next.Path = filepath.Join(dir, "b")
	if err := r.Configure(next); err != nil {
		t.Fatal(err)
	}
	r.put(2)
	r.write()
	r.path = next.Path
	if x, e, _ := r.all(t); x != 2 || e != 2 {
		t.Errorf("%d exchanges and %d events in the second file", x, e)
	}
	if err := r.Configure(Config{Path: dir}); err == nil {
		t.Error("a directory was taken for a file")
	}
}

func TestPutDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newRig(t, Default())
	x := Exchange{Cluster: "api", Reason: outcome.OK, Attempts: 2}
	attempts := make([]Attempt, 2)
	if n := testing.AllocsPerRun(1000, func() { r.Put(&x, attempts) }); n != 0 {
		t.Errorf("Put allocates %v times", n)
	}
}

func BenchmarkPut(b *testing.B) {
	r := &Log{full: make(chan struct{}, 1)}
	r.on.Store(true)
	r.front = newBatch()
	x := Exchange{Cluster: "api", Attempts: 1}
	attempts := make([]Attempt, 1)
	b.ReportAllocs()
	for b.Loop() {
		r.Put(&x, attempts)
		if len(r.front.exchanges) == cap(r.front.exchanges) {
			r.front.reset()
		}
	}
}

func TestConfigValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.Path = "/var/log/" }, "path"},
		{func(c *Config) { c.RotateBytes = 5 }, "rotate_bytes"},
		{func(c *Config) { c.RotateBytes = 1 << 40 }, "rotate_bytes"},
		{func(c *Config) { c.MaxBytes = c.RotateBytes }, "max_bytes"},
		{func(c *Config) { c.RotateAge = time.Millisecond }, "rotate_age"},
		{func(c *Config) { c.RotateAge = -time.Hour }, "rotate_age"},
		{func(c *Config) { c.RotateAge = 0 }, ""},
	} {
		cfg := Default()
		c.change(&cfg)
		var got []string
		cfg.Validate(func(field, _ string) { got = append(got, field) })
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v, want %q", cfg, got, c.want)
		}
	}
}
