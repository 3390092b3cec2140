package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// fullRecord has every field set.
func fullRecord() *Record {
	c, _ := ParseTraceparent([]byte("00-" + specTrace + "-" + specSpan + "-01"))
	r := &Record{
		Start: time.Date(2026, 3, 1, 13, 0, 0, 123456789, time.FixedZone("CET", 3600)), Duration: 12345 * time.Microsecond,
		RequestID: []byte("3f0a9c1e-0000-4000-8000-000000000001"), Trace: c, ParentSpan: SpanID{1}, TraceState: []byte("vendor=1"),
		Direction: Outbound, Listener: "egress", Route: "api-v1", Cluster: "api", Endpoint: "10.0.0.2:8080",
		Method: []byte("GET"), Authority: []byte("api.test:80"), Path: []byte("/items?token=secret"), Protocol: "HTTP/1.1",
		Status: 200, Reason: outcome.OK, Detail: "nothing to add", Rule: "allow-web", BytesIn: 1, BytesOut: 1 << 63,
		ConnectTime: 1500 * time.Microsecond, Queued: 2 * time.Millisecond, FirstByteTime: 11 * time.Millisecond,
		DownstreamAddr: netip.MustParseAddrPort("[fe80::1%eth0]:40000"), UpstreamAddr: netip.MustParseAddrPort("10.0.0.2:8080"),
		DownstreamID: "spiffe://test.example/web", UpstreamID: "spiffe://test.example/api", LocalID: "spiffe://test.example/web",
	}
	r.AddAttempt(Attempt{Endpoint: "10.0.0.1:8080", Span: SpanID{2}, Reason: outcome.UpstreamReset, Status: 503, Offset: 0, Duration: time.Millisecond})
	r.AddAttempt(Attempt{Endpoint: "10.0.0.2:8080", Span: SpanID{3}, Reason: outcome.OK, Offset: 2 * time.Millisecond, Duration: 10 * time.Millisecond})
	return r
}

// run starts l.Run and returns a function that ends it and returns its error.
func run(t testing.TB, l *AccessLog) func() error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return sync.OnceValue(func() error { cancel(); return <-done })
}

// logged returns what a log writes of some records.
func logged(t *testing.T, query bool, rs ...*Record) []byte {
	t.Helper()
	var b bytes.Buffer
	l, err := NewAccessLog(AccessLogConfig{Sink: &b, Query: query})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		l.Write(r)
	}
	if err := run(t, l)(); err != nil {
		t.Fatal(err)
	}
	if l.Written() != uint64(len(rs)) || l.Dropped() != 0 {
		t.Errorf("%d written, %d dropped", l.Written(), l.Dropped())
	}
	return b.Bytes()
}

func TestAccessLogGolden(t *testing.T) {
	least := &Record{Start: testStart}
	tcp := &Record{
		Start: testStart, Duration: time.Second, Direction: Inbound, Listener: "postgres", Cluster: "local", Protocol: "tcp",
		Reason: outcome.DownstreamGone, BytesIn: 10, BytesOut: 20, DownstreamAddr: netip.MustParseAddrPort("127.0.0.1:5"),
	}
	many := &Record{Start: testStart}
	for i := range MaxAttempts + 3 {
		many.AddAttempt(Attempt{Endpoint: string(rune('a' + i)), Reason: outcome.ConnectFailed})
	}
	escaped := &Record{
		Start: testStart, Method: []byte("G\"E\\T"), Path: []byte("/\x00\x01\t\r\n\x1f\x7f\u2028é\xff\xc3"), Detail: "<a>&", Reason: outcome.Internal,
	}
	got := logged(t, false, fullRecord(), least, tcp, many, escaped)
	golden(t, "testdata/access.jsonl", got)
	for line := range bytes.Lines(got) {
		if !json.Valid(line) {
			t.Errorf("not JSON: %s", line)
		}
	}
	// The order of records says whether the kept attempts are the first and the deciding one.
	if a := many.kept(); len(a) != MaxAttempts || a[0].Endpoint != "a" || a[MaxAttempts-1].Endpoint != "k" {
		t.Errorf("kept %v", a)
	}
}

func TestAccessLogQuery(t *testing.T) {
	r := &Record{Path: []byte("/items?token=secret?x")}
	if b := logged(t, false, r); bytes.Contains(b, []byte("secret")) || !bytes.Contains(b, []byte(`"path":"/items"`)) {
		t.Errorf("without the query: %s", b)
	}
	if b := logged(t, true, r); !bytes.Contains(b, []byte(`"path":"/items?token=secret?x"`)) {
		t.Errorf("with the query: %s", b)
	}
}

func TestRecordReset(t *testing.T) {
	r := fullRecord()
	r.Reset()
	if r.AttemptCount != 0 || len(r.kept()) != 0 || r.Attempts[0] != (Attempt{}) || r.RequestID != nil || !r.Trace.IsZero() {
		t.Errorf("left: %+v", r)
	}
}

// However many attempts were made, nothing is left of any, nor in any other field.
func TestRecordResetLeavesNothing(t *testing.T) {
	for n := range MaxAttempts + 3 {
		var r Record
		fill(t, reflect.ValueOf(&r).Elem())
		r.Attempts, r.AttemptCount = [MaxAttempts]Attempt{}, 0
		for range n {
			var a Attempt
			fill(t, reflect.ValueOf(&a).Elem())
			r.AddAttempt(a)
		}
		r.Reset()
		if !reflect.ValueOf(r).IsZero() {
			t.Errorf("after %d attempts: left: %+v", n, r)
		}
	}
}

// fill gives every field of v a value that is not zero.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		switch v.Interface().(type) {
		case time.Time:
			v.Set(reflect.ValueOf(time.Unix(1, 2)))
		case netip.AddrPort:
			v.Set(reflect.ValueOf(netip.MustParseAddrPort("10.0.0.1:80")))
		default:
			for i := range v.NumField() {
				fill(t, v.Field(i))
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	case reflect.Slice:
		v.SetBytes([]byte("x"))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	default:
		switch {
		case v.CanInt():
			v.SetInt(1)
		case v.CanUint():
			v.SetUint(1)
		default:
			t.Fatalf("no value for a %s", v.Type())
		}
	}
	if v.IsZero() {
		t.Fatalf("a %s is still zero", v.Type())
	}
}

func TestNewAccessLogErrors(t *testing.T) {
	for _, path := range []string{"", filepath.Join(t.TempDir(), "none", "access.log")} {
		if l, err := NewAccessLog(AccessLogConfig{Path: path}); err == nil || l != nil || !strings.HasPrefix(err.Error(), "access log: ") {
			t.Errorf("%q: %v", path, err)
		}
	}
	for _, path := range []string{"stdout", "stderr"} {
		l, err := NewAccessLog(AccessLogConfig{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.Reopen(), run(t, l)()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestNilAccessLog(t *testing.T) {
	var l *AccessLog
	l.Write(fullRecord())
	if err := errors.Join(run(t, l)(), l.Reopen()); err != nil || l.Written() != 0 || l.Dropped() != 0 {
		t.Errorf("%v, %d, %d", err, l.Written(), l.Dropped())
	}
}

func TestAccessLogReopensAfterARename(t *testing.T) {
	dir := t.TempDir()
	path, moved := filepath.Join(dir, "access.log"), filepath.Join(dir, "access.log.1")
	if err := os.WriteFile(path, []byte("before\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	l, err := NewAccessLog(AccessLogConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	l.Write(&Record{Listener: "first"})
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	l.Write(&Record{Listener: "second"})
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.Write(&Record{Listener: "third"})
	if err := run(t, l)(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string][]string{moved: {"before", "first", "second"}, path: {"third"}} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		if len(got) != len(want) {
			t.Fatalf("%s: %q", file, got)
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%s: line %d is %q, want %s", file, i, got[i], want[i])
			}
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode %v", info.Mode())
	}
	// The log is closed: opening it again would leave a file that nobody closes.
	if err := l.Reopen(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Reopen after the end: %v", err)
	}
}

func TestAccessLogReopenKeepsTheOldFileWhenItFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	l, err := NewAccessLog(AccessLogConfig{Path: filepath.Join(dir, "access.log")})
	if err != nil {
		t.Fatal(err)
	}
	moved := dir + ".old"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("reopened in a folder that is gone")
	}
	l.Write(&Record{Listener: "kept"})
	if err := run(t, l)(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(moved, "access.log")); err != nil || !bytes.Contains(b, []byte("kept")) {
		t.Errorf("%s, %v", b, err)
	}
}
