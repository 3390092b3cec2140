package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// change makes a change of l.
func change(t *testing.T, l *AccessLog, path string, leaveOut float64) {
	t.Helper()
	c, err := l.Prepare(path, leaveOut)
	if err != nil {
		t.Fatal(err)
	}
	c.Commit()
}

// records are the names of the listeners in a file of records.
func records(t *testing.T, path string) (names []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\{.*"listener":"([^"]*)".*\}$`).FindAllSubmatch(b, -1) {
		names = append(names, string(m[1]))
	}
	if n := bytes.Count(b, []byte{'\n'}); n != len(names) {
		t.Errorf("%s has %d lines, of which %d are records", path, n, len(names))
	}
	return names
}

// Records go where the log went when they were taken, whenever it is written out.
func TestAccessLogChanges(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	l, err := NewAccessLog(AccessLogConfig{Path: a})
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string) { l.Write(&Record{Listener: name}) }
	flush := func() {
		t.Helper()
		if err := l.flush(); err != nil {
			t.Error(err)
		}
	}
	write("1")
	change(t, l, b, 0)
	write("2")
	flush()
	change(t, l, a, 0)
	change(t, l, b, 0)
	write("3")
	change(t, l, "off", 0)
	write("nobody wants it any more")
	if l.Takes(false) || l.Takes(true) {
		t.Error("a log that is off takes records")
	}
	flush()
	change(t, l, a, 0)
	write("4")
	if _, err := l.Prepare(filepath.Join(a, "none"), 0); err == nil || !strings.HasPrefix(err.Error(), "access log: cannot open the file: ") {
		t.Errorf("a file that cannot be: %v", err)
	}
	c, err := l.Prepare(b, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.Abandon()
	write("5")
	change(t, l, b, 0)
	write("6")
	if err := run(t, l)(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(records(t, a), records(t, b)); got != "[1 4 5] [2 3 6]" {
		t.Errorf("the files have %s", got)
	}
	if l.Written() != 6 || l.Dropped() != 0 {
		t.Errorf("%d written, %d dropped", l.Written(), l.Dropped())
	}
	// A change that comes after the end opens nothing that nobody closes.
	late, err := l.Prepare(a, 0)
	if err != nil {
		t.Fatal(err)
	}
	late.Commit()
	if _, err := late.next.file.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file of a change after the end: %v", err)
	}
}

// However often it is changed while nothing is written out, all goes somewhere, in order.
func TestAccessLogChangesAreBounded(t *testing.T) {
	dir := t.TempDir()
	l, err := NewAccessLog(AccessLogConfig{Path: filepath.Join(dir, "0")})
	if err != nil {
		t.Fatal(err)
	}
	const changes = 2 * maxChanges
	for i := range changes {
		l.Write(&Record{Listener: fmt.Sprint(i)})
		change(t, l, filepath.Join(dir, fmt.Sprint(i+1)), 0)
	}
	l.Write(&Record{Listener: fmt.Sprint(changes)})
	if len(l.next) != maxChanges {
		t.Errorf("%d changes wait", len(l.next))
	}
	if err := run(t, l)(); err != nil {
		t.Fatal(err)
	}
	var all []string
	for i := range changes + 1 {
		got := records(t, filepath.Join(dir, fmt.Sprint(i)))
		if i < maxChanges && (len(got) != 1 || got[0] != fmt.Sprint(i)) {
			t.Errorf("file %d has %v", i, got)
		}
		all = append(all, got...)
	}
	for i, name := range all {
		if name != fmt.Sprint(i) {
			t.Errorf("record %d is %s", i, name)
		}
	}
	if len(all) != changes+1 {
		t.Errorf("%d records of %d", len(all), changes+1)
	}
}

// Whoever writes while the log moves loses nothing.
func TestAccessLogChangesUnderWrites(t *testing.T) {
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "0"), filepath.Join(dir, "1"), filepath.Join(dir, "2")}
	l, err := NewAccessLog(AccessLogConfig{Path: paths[0]})
	if err != nil {
		t.Fatal(err)
	}
	end := run(t, l)
	const writers, each = 4, 300
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				l.Write(&Record{Listener: fmt.Sprintf("%d-%d", w, i)})
			}
		})
	}
	for i := range 100 {
		change(t, l, paths[i%3], 0)
		if i%10 == 0 {
			if err := l.Reopen(); err != nil {
				t.Error(err)
			}
		}
	}
	wg.Wait()
	if err := end(); err != nil {
		t.Error(err)
	}
	seen := map[string]bool{}
	for _, path := range paths {
		for _, name := range records(t, path) {
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
	}
	if len(seen) != writers*each || l.Dropped() != 0 {
		t.Errorf("%d records of %d, %d dropped", len(seen), writers*each, l.Dropped())
	}
}

// A sink that blocks holds up neither the change nor what is taken after it; when it goes
// on, each gets its own.
func TestAccessLogChangesWhileItBlocks(t *testing.T) {
	r, w := io.Pipe()
	l, err := NewAccessLog(AccessLogConfig{Sink: w})
	if err != nil {
		t.Fatal(err)
	}
	end := run(t, l)
	l.Write(&Record{Listener: "1"})
	first := make([]byte, 1)
	if _, err := io.ReadFull(r, first); err != nil { // Run is in the middle of it
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "log")
	l.Write(&Record{Listener: "2"})
	change(t, l, path, 0)
	l.Write(&Record{Listener: "3"})
	read := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		read <- string(first) + string(b)
	}()
	if err := end(); err != nil {
		t.Error(err)
	}
	_ = w.Close()
	if got := <-read; strings.Count(got, "\n") != 2 || !strings.Contains(got, `"listener":"1"`) || !strings.Contains(got, `"listener":"2"`) {
		t.Errorf("the sink that blocked got %q", got)
	}
	if got := records(t, path); len(got) != 1 || got[0] != "3" {
		t.Errorf("the file has %v", got)
	}
}

// A share of the successful exchanges is taken, and all others.
func TestAccessLogTakes(t *testing.T) {
	var none *AccessLog
	if none.Takes(false) {
		t.Error("no log takes records")
	}
	path := filepath.Join(t.TempDir(), "log")
	l, err := NewAccessLog(AccessLogConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		leaveOut  float64
		least, at int // of 1000
	}{{0, 1000, 1000}, {0.5, 100, 900}, {1, 0, 0}} {
		change(t, l, path, c.leaveOut)
		n := 0
		for range 1000 {
			if l.Takes(true) {
				n++
			}
		}
		if n < c.least || n > c.at || !l.Takes(false) {
			t.Errorf("%v left out: %d of 1000 are taken", c.leaveOut, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { l.Takes(true) }); n > 0 && !raceEnabled {
		t.Errorf("Takes allocates %v times", n)
	}
	l.Write(&Record{Listener: "x", Reason: outcome.OK})
	if err := run(t, l)(); err != nil {
		t.Error(err)
	}
}
