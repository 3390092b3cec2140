package demo

import (
	"bytes"
	"testing"
	"time"
)

func testRun() *run {
	w, j, s := testWitness()
	for i := range 3000 {
		s.request(time.Duration(i)*5*time.Millisecond, time.Duration(1+i%10)*time.Millisecond, i != 17)
	}
	w.outbound(outboundLine(began.Add(4*time.Second), 2))
	w.inbound([]byte(`{"time":"2026-05-01T12:00:04Z","direction":"inbound","cluster":"api","downstream_id":"spiffe://demo.test/web"}`))
	w.settle(time.Time{})
	j.add(Event{At: began.Add(4100 * time.Millisecond), Kind: kindEjected, Endpoint: "127.0.0.1:2", Cause: "consecutive_failures", For: "3s"})
	return &run{began: began, stats: s, journal: j, witness: w}
}

func TestReport(t *testing.T) {
	rep := newReport(testRun(), 15*time.Second)
	var b bytes.Buffer
	if err := rep.writeJSON(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", b.String())
	golden(t, "report.txt", rep.text())
}

func TestReportOfNothing(t *testing.T) {
	w, j, s := testWitness()
	var b bytes.Buffer
	if err := newReport(&run{began: began, stats: s, journal: j, witness: w}, time.Second).writeJSON(&b); err != nil {
		t.Fatal(err)
	}
	want := `{"requests":0,"failures":0,"success_percent":100,"p50_ms":0,"p99_ms":0,"retries":0,"ejections":0,"not_sent":0,"seconds":1,"identities":{"client":"","servers":[]},"events":[]}` + "\n"
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
}

// A long run tells its last events only.
func TestReportIsBounded(t *testing.T) {
	r := testRun()
	for range 200 {
		r.journal.add(Event{At: began.Add(time.Minute), Kind: kindProbation, Endpoint: "127.0.0.1:2"})
	}
	if n := bytes.Count([]byte(newReport(r, time.Minute).text()), []byte("\n")); n > 50 {
		t.Errorf("%d lines", n)
	}
}
