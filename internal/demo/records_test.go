package demo

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

var began = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestParseEvent(t *testing.T) {
	at := began.Add(time.Second)
	for _, c := range []struct {
		name, line string
		want       Event
		ok         bool
	}{
		{
			"ejected", `{"time":"2026-05-01T12:00:01Z","level":"WARN","msg":"endpoint ejected","event":"ejected","cluster":"api","endpoint":"127.0.0.1:1","cause":"consecutive_failures","for":"3.249s"}`,
			Event{At: at, Kind: kindEjected, Endpoint: "127.0.0.1:1", Cause: "consecutive_failures", For: "3.249s"},
			true,
		},
		{
			"breaker", `{"time":"2026-05-01T12:00:01Z","level":"WARN","msg":"circuit breaker open","event":"breaker_open","cluster":"api","from":"closed"}`,
			Event{At: at, Kind: "breaker_open"},
			true,
		},
		{
			"certificate", `{"time":"2026-05-01T12:00:01Z","level":"INFO","msg":"identity in use","event":"identity","id":"spiffe://demo.test/web"}`,
			Event{At: at, Kind: kindRotated, Instance: "web"},
			true,
		},
		{"other cluster", `{"time":"2026-05-01T12:00:01Z","event":"ejected","cluster":"web","endpoint":"127.0.0.1:1"}`, Event{}, false},
		{"no event", `{"time":"2026-05-01T12:00:01Z","level":"INFO","msg":"hello"}`, Event{}, false},
		{"no JSON", `panic: something`, Event{}, false},
	} {
		got, ok := parseEvent([]byte(c.line))
		if ok != c.ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", c.name, got, ok)
		}
	}
}

func testWitness() (*witness, *journal, *stats) {
	s := &stats{}
	j := &journal{began: began, names: map[string]string{"127.0.0.1:2": "api-2"}}
	return newWitness(s, j), j, s
}

func outboundLine(at time.Time, attempts int) []byte {
	return fmt.Appendf(nil, `{"time":%q,"direction":"outbound","cluster":"api","status":200,"duration_us":5000,"attempt_count":%d,`+
		`"attempts":[{"endpoint":"127.0.0.1:2","reason":"upstream_error","status":500}],"upstream_id":"spiffe://demo.test/api","local_id":"spiffe://demo.test/web"}`,
		at.Format(time.RFC3339Nano), attempts)
}

func TestWitnessBursts(t *testing.T) {
	w, j, s := testWitness()
	w.outbound(outboundLine(began.Add(-time.Second), 3)) // before the load
	w.outbound(outboundLine(began.Add(time.Second), 1))
	w.outbound(outboundLine(began.Add(2*time.Second), 2))
	w.outbound(outboundLine(began.Add(2500*time.Millisecond), 3))
	w.settle(began.Add(3 * time.Second))
	if list := j.all(); len(list) != 0 {
		t.Errorf("told while it may go on: %+v", list)
	}
	w.outbound(outboundLine(began.Add(5*time.Second), 2)) // another one
	w.settle(time.Time{})
	want := []Event{
		{At: began.Add(2005 * time.Millisecond), Seconds: 2.005, Kind: kindRetryBurst, Endpoint: "127.0.0.1:2", Instance: "api-2", Cause: "upstream_error", Count: 3},
		{At: began.Add(5005 * time.Millisecond), Seconds: 5.005, Kind: kindRetryBurst, Endpoint: "127.0.0.1:2", Instance: "api-2", Cause: "upstream_error", Count: 1},
	}
	if got := j.all(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if total := s.total(time.Minute); total.Retries != 4 {
		t.Errorf("%d retries", total.Retries)
	}
	w.settle(began.Add(time.Hour))
	if n := len(j.all()); n != 2 {
		t.Errorf("%d events after another settle", n)
	}
}

func TestWitnessIdentities(t *testing.T) {
	w, _, _ := testWitness()
	w.outbound(outboundLine(began, 1))
	w.outbound([]byte(`{"time":"2026-05-01T12:00:01Z","direction":"inbound","cluster":"web","upstream_id":"spiffe://demo.test/no"}`))
	w.inbound([]byte(`{"time":"2026-05-01T12:00:01Z","direction":"inbound","cluster":"api","downstream_id":"spiffe://demo.test/web"}`))
	w.inbound([]byte(`{"time":"2026-05-01T12:00:02Z","direction":"inbound","cluster":"api","downstream_id":"spiffe://demo.test/web"}`))
	w.inbound([]byte(`{"time":"2026-05-01T12:00:02Z","direction":"inbound","cluster":"api"}`))
	w.inbound([]byte(`not a record`))
	clients, servers := w.identities()
	if !reflect.DeepEqual(clients, []string{"spiffe://demo.test/web"}) || !reflect.DeepEqual(servers, []string{"spiffe://demo.test/api"}) {
		t.Errorf("%v, %v", clients, servers)
	}
}

func TestJournal(t *testing.T) {
	j := &journal{began: began, names: map[string]string{"127.0.0.1:2": "api-2"}}
	var heard []string
	j.listen(func(e Event) { heard = append(heard, e.Kind) })
	j.add(Event{At: began.Add(2 * time.Second), Kind: kindEjected, Endpoint: "127.0.0.1:2"})
	j.listen(nil)
	j.add(Event{At: began.Add(1234567 * time.Microsecond), Kind: kindRotated, Instance: "web"})
	list := j.all()
	if len(list) != 2 || list[0].Kind != kindRotated || list[0].Seconds != 1.234 || list[1].Instance != "api-2" {
		t.Errorf("%+v", list)
	}
	if !reflect.DeepEqual(heard, []string{kindEjected}) {
		t.Errorf("heard %v", heard)
	}
	if last := j.last(1); len(last) != 1 || last[0].Kind != kindEjected {
		t.Errorf("last: %+v", last)
	}
	for range 2 * maxEvents {
		j.add(Event{At: began.Add(time.Minute), Kind: kindEjected})
	}
	if n := len(j.all()); n > maxEvents {
		t.Errorf("%d events are kept", n)
	}
	if n := j.ejections(); n != 2*maxEvents+1 {
		t.Errorf("%d ejections counted", n)
	}
}
