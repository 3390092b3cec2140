package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sink takes what it is told to.
type sink struct {
	mu    sync.Mutex
	taken []byte
	room  int // bytes before it fails; negative for no end
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(p)
	if s.room >= 0 {
		n = min(n, s.room)
		s.room -= n
	}
	s.taken = append(s.taken, p[:n]...)
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func (s *sink) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.taken)
}

// droppedIn adds up what the log says was dropped, and counts the records.
func droppedIn(t *testing.T, b []byte) (dropped, records, torn uint64) {
	t.Helper()
	for line := range bytes.Lines(b) {
		var o struct {
			Message string
			Dropped uint64
		}
		switch err := json.Unmarshal(line, &o); {
		case err != nil:
			torn++
		case o.Message != "":
			dropped += o.Dropped
		default:
			records++
		}
	}
	return dropped, records, torn
}

func TestAccessLogDropsWhatTheSinkCannotTake(t *testing.T) {
	line := uint64(len(appendRecord(nil, fullRecord(), false)))
	const all = 10000
	fits := uint64(bufferBytes) / line
	s := &sink{room: -1}
	l, err := NewAccessLog(AccessLogConfig{Sink: s})
	if err != nil {
		t.Fatal(err)
	}
	for range all {
		l.Write(fullRecord()) // nobody writes it out
	}
	if l.Written() != fits || l.Dropped() != all-fits {
		t.Fatalf("%d written, %d dropped; want %d, %d", l.Written(), l.Dropped(), fits, all-fits)
	}
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	dropped, records, torn := droppedIn(t, s.Bytes())
	if dropped != all-fits || records != fits || torn != 0 {
		t.Errorf("the log holds %d records, %d torn, and says %d were dropped", records, torn, dropped)
	}
	// Said once.
	l.Write(fullRecord())
	if err := run(t, l)(); err != nil {
		t.Fatal(err)
	}
	if again, records, _ := droppedIn(t, s.Bytes()); again != dropped || records != fits+1 {
		t.Errorf("%d records, %d dropped", records, again)
	}
}

// Wherever the sink fails, each record is in the log or said to be missing,
// and only the torn line is spoilt.
func TestAccessLogSaysWhatAFailedWriteLost(t *testing.T) {
	line := len(appendRecord(nil, fullRecord(), false))
	for _, room := range []int{0, 1, line - 1, line, line + 1, 2*line + 7, 3*line - 1, 3 * line} {
		s := &sink{room: room}
		l, err := NewAccessLog(AccessLogConfig{Sink: s})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			l.Write(fullRecord())
		}
		lost := uint64(3 - room/line)
		err = l.flush()
		if (err != nil) != (lost > 0) || lost > 0 && !errors.Is(err, errFull) {
			t.Errorf("room %d: %v", room, err)
		}
		if l.Dropped() != lost {
			t.Errorf("room %d: %d dropped, want %d", room, l.Dropped(), lost)
		}
		// Still full: what was lost is not forgotten.
		l.Write(fullRecord())
		if err := l.flush(); err == nil {
			t.Errorf("room %d: no error", room)
		}
		s.room = -1
		l.Write(fullRecord())
		if err := run(t, l)(); err != nil {
			t.Fatal(err)
		}
		dropped, records, torn := droppedIn(t, s.Bytes())
		wantTorn, wantRecords := uint64(0), 4-lost
		switch room % line {
		case 0:
		case line - 1:
			wantRecords++ // only its line feed was missing, which is made up for
		default:
			wantTorn = 1
		}
		if dropped != lost+1 || records != wantRecords || torn != wantTorn {
			t.Errorf("room %d: %d records, %d torn, %d dropped; want %d lost\n%s", room, records, torn, dropped, lost+1, s.Bytes())
		}
		if l.Dropped() != lost+1 {
			t.Errorf("room %d: counted %d dropped, want %d", room, l.Dropped(), lost+1)
		}
	}
}

func TestAccessLogRunSaysThatTheLastWriteFailed(t *testing.T) {
	l, err := NewAccessLog(AccessLogConfig{Sink: &sink{}})
	if err != nil {
		t.Fatal(err)
	}
	l.Write(fullRecord())
	if err := run(t, l)(); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
}

func TestAccessLogIsWrittenOutInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{room: -1}
		l, err := NewAccessLog(AccessLogConfig{Sink: s})
		if err != nil {
			t.Fatal(err)
		}
		end := run(t, l)
		l.Write(fullRecord())
		synctest.Wait()
		if len(s.Bytes()) != 0 {
			t.Error("written out at once")
		}
		time.Sleep(flushInterval) // the bubble's clock
		synctest.Wait()
		if _, records, _ := droppedIn(t, s.Bytes()); records != 1 {
			t.Errorf("%d records after the interval", records)
		}
		// Much waits: not even so long.
		for range flushBytes/len(s.Bytes()) + 1 {
			l.Write(fullRecord())
		}
		synctest.Wait()
		if _, records, _ := droppedIn(t, s.Bytes()); records != l.Written() {
			t.Errorf("%d of %d records", records, l.Written())
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

func TestAccessLogGivesMemoryBackAfterABurst(t *testing.T) {
	l, err := NewAccessLog(AccessLogConfig{Sink: &sink{room: -1}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		l.Write(fullRecord())
	}
	for range 4 { // each buffer is seen twice
		if err := l.flush(); err != nil {
			t.Fatal(err)
		}
		l.Write(&Record{})
	}
	if got := cap(l.front) + cap(l.back); got > 8*flushBytes {
		t.Errorf("%d bytes are kept", got)
	}
	if err := run(t, l)(); err != nil {
		t.Fatal(err)
	}
}

func TestAccessLogTakesRecordsFromMany(t *testing.T) {
	s := &sink{room: -1}
	l, err := NewAccessLog(AccessLogConfig{Sink: s})
	if err != nil {
		t.Fatal(err)
	}
	end := run(t, l)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			r := fullRecord()
			for range 200 {
				l.Write(r)
			}
		})
	}
	wg.Wait()
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if _, records, torn := droppedIn(t, s.Bytes()); records != 800 || torn != 0 {
		t.Errorf("%d records, %d torn", records, torn)
	}
}
