package discovery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// scripted is a Source whose Run hands its sink to the test.
type scripted struct {
	Tracker
	sink chan Sink
}

func newScripted() *scripted { return &scripted{sink: make(chan Sink, 1)} }

func (s *scripted) Run(ctx context.Context, services []string, sink Sink) error {
	s.Follow(services)
	s.sink <- sink
	<-ctx.Done()
	return nil
}

// lockedBuffer collects log lines from several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// rig is a Snapshotter under test, in a synctest bubble.
type rig struct {
	*Snapshotter
	src  *scripted
	live Sink
	got  recorder
	log  lockedBuffer
	stop func()
}

func newRig(t *testing.T, path string) *rig {
	t.Helper()
	r := &rig{src: newScripted()}
	r.Snapshotter = NewSnapshotter(r.src, SnapshotConfig{
		Path: path, Datacenter: "dc1", Logger: slog.New(slog.NewTextHandler(&r.log, nil)),
	})
	return r
}

func (r *rig) run(t *testing.T, services ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, services, &r.got) }()
	r.live = <-r.src.sink
	r.stop = func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func (r *rig) want(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	if got := r.got.take(); got != want {
		t.Errorf("the sink got\n%s\nwant\n%s", got, want)
	}
}

// saved writes a snapshot of services as an earlier process would.
func saved(t *testing.T, path string, services ...*Service) {
	t.Helper()
	data, err := encodeSnapshot(services, "dc1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteKept(path, data); err != nil {
		t.Fatal(err)
	}
}

func TestColdStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	synctest.Test(t, func(t *testing.T) {
		saved(t, path, service("api", 1), service("web", 2), service("old", 3))
		time.Sleep(time.Hour)
		r := newRig(t, path)
		r.run(t, "api", "web", "db")
		r.want(t, "")

		// Trouble does not wait for the grace time.
		r.live.Fail("web", errNoLeader)
		r.want(t, "web stale 127.0.0.1:2\nweb failed: no leader")
		r.live.Fail("web", errNoLeader)
		r.want(t, "web failed: no leader")
		r.live.Fail("db", errNoLeader)
		r.want(t, "db failed: no leader")

		time.Sleep(snapshotGrace)
		r.want(t, "api stale 127.0.0.1:1")
		for _, w := range r.Status() {
			want := WatchStatus{Service: w.Service, Age: time.Hour + snapshotGrace, Endpoints: 1, Stale: true}
			if w.Service == "db" {
				want = WatchStatus{Service: "db", Age: -1}
			}
			if w != want {
				t.Errorf("status %+v, want %+v", w, want)
			}
		}

		r.src.Confirm("api", 5, 2, "")
		r.live.Update(service("api", 1, 4))
		r.want(t, "api 127.0.0.1:1 127.0.0.1:4")
		if w := r.Status()[0]; w != (WatchStatus{Service: "api", Index: 5, Endpoints: 2}) {
			t.Errorf("status after the live answer: %+v", w)
		}
		r.live.Fail("api", errNoLeader)
		r.want(t, "api failed: no leader")
		r.stop()
		if n := r.log.count("served from the discovery snapshot"); n != 2 {
			t.Errorf("%d log lines on stale services, want 2", n)
		}

		// What is still stale keeps its age in the file; what is not wanted is gone.
		got := readBack(t, path)
		if len(got) != 2 || got["web"] == nil || got["api"] == nil {
			t.Fatalf("the file holds %v", got)
		}
		if age := time.Since(got["web"].Updated); age < time.Hour {
			t.Errorf("the unconfirmed service is %v old in the file", age)
		}
	})
}

func readBack(t *testing.T, path string) map[string]*Service {
	t.Helper()
	data, err := ReadKept(path)
	if err != nil {
		t.Fatal(err)
	}
	services, _, err := decodeSnapshot(data, "dc1")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]*Service{}
	for _, s := range services {
		m[s.Name] = s
	}
	return m
}

func TestLiveInTimeNeedsNoSnapshot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	synctest.Test(t, func(t *testing.T) {
		saved(t, path, service("api", 1))
		r := newRig(t, path)
		r.run(t, "api")
		time.Sleep(snapshotGrace - time.Millisecond)
		r.live.Update(service("api", 2))
		r.want(t, "api 127.0.0.1:2")
		r.live.Fail("api", errNoLeader)
		time.Sleep(time.Minute)
		r.want(t, "api failed: no leader")
		r.stop()
	})
}

func TestSnapshotIsKeptUpToDate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, path)
		r.run(t, "api")
		time.Sleep(snapshotRefresh)
		synctest.Wait()
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a file was written before the source answered: %v", err)
		}
		r.src.Confirm("api", 1, 1, "")
		r.live.Update(service("api", 1))
		time.Sleep(snapshotSettle)
		synctest.Wait()
		if got := readBack(t, path)["api"]; got == nil || got.Endpoints[0].Address.Port() != 1 {
			t.Errorf("the file holds %v", got)
		}
		// Confirmed without a change: the age in the file follows.
		for range 3 {
			time.Sleep(snapshotRefresh)
			r.src.Confirm("api", 1, 1, "")
		}
		r.stop()
		if age := time.Since(readBack(t, path)["api"].Updated); age >= time.Millisecond {
			t.Errorf("age in the file %v, want none", age)
		}
		if s := r.Snapshot(); s.SaveError != "" || s.Saved.IsZero() || s.Path != path {
			t.Errorf("status %+v", s)
		}
	})
}

func TestSecondRunStartsWithTheFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, path)
		r.run(t, "api", "web")
		r.live.Update(service("api", 1))
		r.live.Update(service("web", 2))
		r.stop()
		r.got.take()
		r.run(t, "api", "db")
		r.want(t, "api 127.0.0.1:1")
		r.stop()
		if got := readBack(t, path); len(got) != 1 {
			t.Errorf("the file holds %v", got)
		}
	})
}

func TestBadSnapshotIsNotUsedAndReplaced(t *testing.T) {
	for _, tt := range []struct {
		name, content, want string
	}{
		{"garbage", "hello", "not a discovery snapshot"},
		{"version", `{"format":"outrigger-discovery-snapshot","version":9}` + "\n", "format version 9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "snapshot")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, path)
				r.run(t, "api")
				r.live.Fail("api", errNoLeader)
				time.Sleep(time.Minute)
				r.want(t, "api failed: no leader")
				if s := r.Snapshot(); !strings.Contains(s.LoadError, tt.want) {
					t.Errorf("load error %q, want one with %q", s.LoadError, tt.want)
				}
				if n := r.log.count(tt.want); n != 1 {
					t.Errorf("%d log lines, want 1", n)
				}
				r.live.Update(service("api", 1))
				r.stop()
				if got := readBack(t, path); got["api"] == nil {
					t.Errorf("the file holds %v", got)
				}
			})
		})
	}
}

func TestWriteTroubleIsShownOnceAndRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "/nonexistent/snapshot")
		var mu sync.Mutex
		fail, writes := error(syscall.ENOSPC), 0
		r.write = func(string, []byte) error {
			mu.Lock()
			defer mu.Unlock()
			writes++
			return fail
		}
		set := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			fail = err
		}
		count := func() int {
			mu.Lock()
			defer mu.Unlock()
			return writes
		}
		r.run(t, "api")
		for port := range uint16(5) {
			r.live.Update(service("api", port+1))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if s := r.Snapshot(); !strings.Contains(s.SaveError, "no space left") {
			t.Errorf("save error %q", s.SaveError)
		}
		if n := r.log.count("cannot be written"); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
		if n := len(strings.Split(r.got.take(), "\n")); n != 5 {
			t.Errorf("the sink got %d updates, want 5", n)
		}
		set(syscall.EROFS)
		time.Sleep(snapshotRetry)
		synctest.Wait()
		if n := r.log.count("cannot be written"); n != 2 {
			t.Errorf("%d warnings after another cause, want 2", n)
		}
		set(nil)
		before := count()
		time.Sleep(snapshotRetry)
		synctest.Wait()
		if s := r.Snapshot(); s.SaveError != "" || count() != before+1 {
			t.Errorf("after the disk was freed: %+v, %d writes", s, count()-before)
		}
		if n := r.log.count("is written again"); n != 1 {
			t.Errorf("%d lines on the recovery, want 1", n)
		}
		time.Sleep(snapshotRetry)
		synctest.Wait()
		if count() != before+1 {
			t.Error("written again without a change")
		}
		r.stop()
	})
}

type brokenSource struct{ Tracker }

func (*brokenSource) Run(context.Context, []string, Sink) error { return errNoLeader }

func TestRunReturnsTheErrorOfTheSource(t *testing.T) {
	s := NewSnapshotter(&brokenSource{}, SnapshotConfig{Path: filepath.Join(t.TempDir(), "snapshot")})
	if err := s.Run(t.Context(), []string{"api"}, &recorder{}); !errors.Is(err, errNoLeader) {
		t.Errorf("Run = %v", err)
	}
}
