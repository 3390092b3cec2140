package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// six is a mesh of six services, every other of each kind, each of which calls
// the next two.
type six struct {
	*consulMesh
	t       *testing.T
	members []*member
	loads   map[string]*load // by "caller to called"
}

func (x *six) name(i int) string {
	i %= 6
	return fmt.Sprintf("%s-%d", sidecarKinds[i%len(sidecarKinds)], i)
}

func newSix(t *testing.T) *six {
	t.Helper()
	x := &six{consulMesh: newConsulMesh(t, testkit.ConsulOptions{}), t: t, loads: map[string]*load{}}
	for i := range 6 {
		x.protocol("http", x.name(i))
		if i < 2 {
			x.agent.WriteEntry(t, versions(x.name(i)), shares(x.name(i), 0))
		}
	}
	for i := range 6 {
		name := x.name(i)
		x.members = append(x.members, x.register(sidecarKinds[i%len(sidecarKinds)], testkit.Sidecar{
			Service: name, App: serve(t, named(name+"-1", echo(name))), Meta: map[string]string{"version": "v1"},
		}, x.name(i+1), x.name(i+2)))
	}
	for _, s := range x.members {
		s.start()
	}
	return x
}

// pairs calls each with every caller and service that it calls.
func (x *six) pairs(each func(pair, url string)) {
	for _, s := range x.members {
		for _, service := range slices.Sorted(maps.Keys(s.calls)) {
			each(s.Service+" to "+service, s.url(service, "/"))
		}
	}
}

// begin starts the load of a pair.
func (x *six) begin(pair, url string) {
	x.loads[pair] = startLoad(x.t, url, loadOptions{Workers: 1, Pause: 100 * time.Millisecond})
}

// more waits until each load has had n further answers.
func (x *six) more(n int) {
	x.t.Helper()
	want := map[string]int{}
	for pair, l := range x.loads {
		want[pair] = l.count() + n
	}
	for pair, l := range x.loads {
		eventually(x.t, patience, pair+" goes on", func() (bool, string) { return l.count() >= want[pair], "" })
	}
}

// forbids denies a caller what it calls, and allows it again.
func (x *six) forbids(i int) {
	x.t.Helper()
	caller, called := x.members[i], x.name(i+1)
	pair := caller.Service + " to " + called
	x.halt(pair)
	x.agent.Intentions(x.t, called, testkit.Source(caller.Service, "deny"), testkit.Source("*", "allow"))
	settles(x.t, pair+" is forbidden", http.MethodGet, caller.url(called, "/"), nil, gives(http.StatusForbidden))
	x.more(3)
	x.agent.Intentions(x.t, called, testkit.Source("*", "allow"))
	settles(x.t, pair+" is allowed", http.MethodGet, caller.url(called, "/"), nil, gives(http.StatusOK))
	x.begin(pair, caller.url(called, "/"))
}

// halt ends the load of a pair, which must have had no failure.
func (x *six) halt(pair string) {
	x.t.Helper()
	l := x.loads[pair]
	delete(x.loads, pair)
	failures, sent := l.end()
	if len(failures) > 0 {
		x.t.Errorf("%s: %d of %d requests failed, the first: %s", pair, len(failures), sent, failures[0])
	}
}

// versions are the subsets of a service by the version of its instances.
func versions(name string) object {
	return entry("service-resolver", name, "DefaultSubset", "v1", "Subsets", object{
		"v1": object{"Filter": "Service.Meta.version == v1"}, "v2": object{"Filter": "Service.Meta.version == v2"},
	})
}

// shares gives a share of a service's requests, in percent, to its second version.
func shares(name string, second int) object {
	return entry("service-splitter", name, "Splits", []object{
		{"Weight": 100 - second, "ServiceSubset": "v1"}, {"Weight": second, "ServiceSubset": "v2"},
	})
}

// moves brings a second version of a service, gives it all requests by and by,
// takes them back and lets it go.
func (x *six) moves(i int) {
	x.t.Helper()
	name := x.name(i)
	second := x.join(sidecarKinds[(i+1)%len(sidecarKinds)], testkit.Sidecar{
		Service: name, ID: name + "-2", App: serve(x.t, named(name+"-2", echo(name))), Meta: map[string]string{"version": "v2"},
	})
	// Nobody says when all callers know of the instance.
	x.more(10)
	loads := []*load{x.loads[x.name(i+5)+" to "+name], x.loads[x.name(i+4)+" to "+name]}
	for _, share := range []int{50, 100} {
		x.agent.WriteEntry(x.t, shares(name, share))
		x.answers(loads, name+"-2")
	}
	x.only(loads, name+"-2", name+"-1")
	x.agent.WriteEntry(x.t, shares(name, 0))
	x.only(loads, name+"-1", name+"-2")
	// An instance leaves: first the catalog, then, when all know, the machine.
	x.agent.Deregister(x.t, &second.Sidecar)
	x.more(10)
	second.stop()
}

// A mesh of six services of both kinds carries steady traffic while intentions,
// shares, certificates, instances and Consul itself change. Nothing fails but
// what the entries ask for.
func TestConsulSixServices(t *testing.T) {
	x := newSix(t)
	x.pairs(func(pair, url string) {
		settles(t, pair, http.MethodGet, url, nil, gives(http.StatusOK))
		x.begin(pair, url)
	})
	before := map[string]string{} // hashes of the callers' certificates
	x.pairs(func(pair, url string) {
		before[pair] = callerHash(settles(t, pair, http.MethodGet, url, nil, gives(http.StatusOK)))
	})
	x.agent.RotateCA(t, false)

	// One service of each kind.
	for i := range 2 {
		x.forbids(i)
		x.moves(i)
	}
	x.comeAndGo(3)
	x.pairs(func(pair, url string) {
		settlesWithin(t, rotation, pair+": a certificate of the new root", http.MethodGet, url, nil, func(a answer) bool {
			return a.status == http.StatusOK && callerHash(a) != before[pair]
		})
	})

	x.endEnvoys("")
	x.agent.Stop(t)
	x.more(5)
	x.agent.Start(t)
	x.forbids(1)
	x.more(5)
	for _, pair := range slices.Sorted(maps.Keys(x.loads)) {
		x.halt(pair)
	}
}

// comeAndGo makes subsets and shares of a service and deletes them again.
func (x *six) comeAndGo(i int) {
	x.t.Helper()
	name := x.name(i)
	x.endEnvoys(name)
	x.agent.WriteEntry(x.t, versions(name))
	x.more(3)
	x.agent.WriteEntry(x.t, shares(name, 0))
	x.more(3)
	x.agent.DeleteEntry(x.t, "service-splitter", name)
	x.more(3)
	x.agent.DeleteEntry(x.t, "service-resolver", name)
	x.more(3)
}

// endEnvoys ends the loads of Envoys, to one service if it is named, before a
// change after which Envoy answers 503 for seconds, on and off, whoever stands
// beside what it calls.
func (x *six) endEnvoys(to string) {
	x.t.Helper()
	for _, pair := range slices.Sorted(maps.Keys(x.loads)) {
		caller, called, _ := strings.Cut(pair, " to ")
		if strings.HasPrefix(caller, envoyKind) && (to == "" || to == called) {
			x.halt(pair)
		}
	}
}

// callerHash is the hash of the caller's certificate in an answer of echo.
func callerHash(a answer) string {
	_, rest, _ := strings.Cut(a.body[strings.LastIndex(a.body, "Hash=")+1:], "=")
	hash, _, _ := strings.Cut(rest, ";")
	return hash
}

// answers waits until all the loads have had an answer of the instance.
func (x *six) answers(loads []*load, instance string) {
	x.t.Helper()
	for _, l := range loads {
		before := l.answered(instance)
		eventually(x.t, patience, "an answer of "+instance, func() (bool, string) { return l.answered(instance) > before, "" })
	}
}

// only waits until the loads are answered by one instance and no more by another.
func (x *six) only(loads []*load, one, other string) {
	x.t.Helper()
	x.answers(loads, one)
	for _, l := range loads {
		eventually(x.t, patience, "no more answers of "+other, func() (bool, string) {
			before := l.answered(other)
			l.more(x.t, 5)
			n := l.answered(other)
			return n == before, fmt.Sprint(n)
		})
	}
}
