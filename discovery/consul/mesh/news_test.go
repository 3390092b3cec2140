package mesh

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

// What changes in the checks that do not pass names the services; those of a
// node, and what ACLs hide, may be about any.
func TestFailingChecks(t *testing.T) {
	t.Parallel()
	const (
		a     = `{"Node":"n1","CheckID":"a","Status":"critical","ServiceName":"api","Output":"1"}`
		a2    = `{"Node":"n1","CheckID":"a","Status":"critical","ServiceName":"api","Output":"2"}`
		warn  = `{"Node":"n1","CheckID":"a","Status":"warning","ServiceName":"api"}`
		b     = `{"Node":"n2","CheckID":"a","Status":"critical","ServiceName":"db"}`
		moved = `{"Node":"n2","CheckID":"a","Status":"critical","ServiceName":"cache"}`
		node  = `{"Node":"n1","CheckID":"serfHealth","Status":"critical","ServiceName":""}`
	)
	var f failing
	for i, step := range []struct {
		checks []string
		hidden bool
		names  string
		all    bool
	}{
		{checks: []string{a}, names: "api", all: true}, // the first answer
		{checks: []string{a}},
		{checks: []string{a2}}, // only what it says
		{checks: []string{warn}, names: "api"},
		{checks: []string{warn, b}, names: "db"},
		{checks: []string{moved}, names: "api,cache,db"},
		{checks: []string{moved, node}, names: "", all: true},
		{checks: []string{moved}, names: "", all: true},
		{checks: []string{moved}, hidden: true, all: true},
		{checks: []string{moved}, all: true}, // what was hidden may have gone
		{names: "cache"},
		{},
	} {
		names, all, size, err := f.take(consul.Reply{Body: []byte("[" + strings.Join(step.checks, ",") + "]"), Hidden: step.hidden})
		got := strings.Join(slices.Sorted(maps.Keys(names)), ",")
		if err != nil || got != step.names || all != step.all || size != len(step.checks) {
			t.Errorf("step %d: names %q, all %v, size %d, %v; want %q, %v", i, got, all, size, err, step.names, step.all)
		}
	}
	if _, _, _, err := f.take(consul.Reply{Body: []byte("{")}); err == nil {
		t.Error("a broken answer is taken")
	}
}

// Members are woken by the names that they have learnt, also when the news came
// first, and not for too many.
func TestWakeByName(t *testing.T) {
	t.Parallel()
	l := newLane(nil, 1, nil)
	defer l.end()
	woken := func(c chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	api, db := make(chan struct{}, 1), make(chan struct{}, 1)
	l.learn(api, []string{"api", "shared"})
	l.learn(db, []string{"db", "shared"})
	for names, want := range map[string][2]bool{"api": {true, false}, "db": {false, true}, "shared": {true, true}, "other": {}} {
		if !l.wake(map[string]bool{names: true}) {
			t.Errorf("%s: a round is asked for", names)
		}
		if got := [2]bool{woken(api), woken(db)}; got != want {
			t.Errorf("%s wakes %v, want %v", names, got, want)
		}
	}
	l.learn(db, []string{"other"})
	if !woken(db) || woken(api) {
		t.Error("the news that came before the name was learnt is lost")
	}
	l.learn(db, []string{"other"})
	if woken(db) {
		t.Error("the same news counts twice")
	}
	l.forget(db)
	if l.wake(map[string]bool{"db": true}); woken(db) {
		t.Error("one that has left is woken")
	}
	for range newsMost + 1 {
		l.learn(make(chan struct{}, 1), []string{"many"})
	}
	if l.wake(map[string]bool{"many": true}) {
		t.Error("no round for so many")
	}
}

// The first questions wait for all detectors, and not for one that cannot answer.
func TestFirstQuestionsWait(t *testing.T) {
	t.Parallel()
	l := newLane(nil, 1, nil)
	defer l.end()
	primed := func() bool {
		select {
		case <-l.unprimed():
			return true
		default:
			return false
		}
	}
	l.expect([]string{"a", "b"})
	if !l.heard("a") || primed() {
		t.Error("one of two is enough")
	}
	if !l.heard("b") || !primed() {
		t.Error("both are not enough")
	}
	if l.heard("b") {
		t.Error("a later answer counts as the first")
	}
	l = newLane(nil, 1, nil)
	defer l.end()
	l.expect([]string{"a"})
	if l.overdue(); !primed() {
		t.Error("one that does not answer holds them up")
	}
}
