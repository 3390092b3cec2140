package mesh

import (
	"encoding/json"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

const (
	newsMost  = 100              // names of which each is asked for by itself; for more there is a round
	newsPrime = time.Second      // what the first questions wait for the detectors at the most
	newsLate  = 10 * time.Second // how long a name is kept that nobody has learnt yet
)

// detector is a query that waits for all those of a lane.
type detector struct {
	query consul.Query
	// checks says that it answers with the checks that do not pass: what has
	// changed in them says whose instances have.
	checks bool
}

func (d *detector) key() string { return d.query.Path + "?" + d.query.Params["dc"] }

// failing knows which checks did not pass last.
type failing struct {
	known  map[checkKey]checkState // nil before the first answer
	hidden bool
}

type checkKey struct{ node, id string }

type checkState struct{ status, service string }

// take reads the checks that do not pass. It returns the names of the services
// as which the instances are registered whose health may have changed, whether
// it may be that of any, and how many checks there are. The checks of a node,
// and those that ACLs hide, may be about any.
func (f *failing) take(r consul.Reply) (names map[string]bool, all bool, size int, err error) {
	var list []struct{ Node, CheckID, Status, ServiceName string }
	if err := json.Unmarshal(r.Body, &list); err != nil {
		return nil, false, 0, err
	}
	names, now := map[string]bool{}, make(map[checkKey]checkState, len(list))
	all = f.known == nil || f.hidden || r.Hidden
	changed := func(c checkState) {
		names[c.service] = true
		all = all || c.service == ""
	}
	for _, c := range list {
		key, is := checkKey{c.Node, c.CheckID}, checkState{c.Status, c.ServiceName}
		now[key] = is
		if was, ok := f.known[key]; !ok || was != is {
			changed(is)
			if ok {
				changed(was)
			}
		}
	}
	for key, was := range f.known {
		if _, ok := now[key]; !ok {
			changed(was)
		}
	}
	f.known, f.hidden = now, r.Hidden
	return names, all, len(list), nil
}

// learn says under which names what a member follows is registered.
func (l *lane) learn(wake chan struct{}, names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		if l.named[name][wake] {
			continue
		}
		if l.named[name] == nil {
			l.named[name] = map[chan struct{}]bool{}
		}
		l.named[name][wake] = true
		if since, ok := l.missed[name]; ok {
			delete(l.missed, name)
			if time.Since(since) < newsLate {
				signal(wake) // its answer may be older than the news
			}
		}
	}
}

// forget takes a member out of all names.
func (l *lane) forget(wake chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, members := range l.named {
		delete(members, wake)
		if len(members) == 0 {
			delete(l.named, name)
		}
	}
}

// wake has those asked for that are registered under the names. It reports
// false when there are so many that a round is better.
func (l *lane) wake(names map[string]bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, since := range l.missed {
		if time.Since(since) >= newsLate {
			delete(l.missed, name)
		}
	}
	count := 0
	for name := range names {
		count += len(l.named[name])
	}
	if count > newsMost || len(l.missed)+len(names) > 10*newsMost {
		return false
	}
	for name := range names {
		if len(l.named[name]) == 0 {
			l.missed[name] = time.Now()
		}
		for wake := range l.named[name] {
			signal(wake)
		}
	}
	return true
}

// expect says which detectors there are. The first questions are asked when all
// have answered once, so that no change falls between the two.
func (l *lane) expect(keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		l.pending = map[string]bool{}
		for _, key := range keys {
			l.pending[key] = true
		}
		l.prime(len(keys) == 0)
	}
}

// heard says that a detector has answered, or cannot. It reports whether the
// first questions still wait, or waited for this.
func (l *lane) heard(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.primed:
		return false
	default:
	}
	delete(l.pending, key)
	l.prime(len(l.pending) == 0)
	return true
}

// prime lets the first questions be asked, if so. l.mu is held.
func (l *lane) prime(so bool) {
	if !so {
		return
	}
	select {
	case <-l.primed:
	default:
		close(l.primed)
	}
}

// unprimed returns what is closed when the first questions may be asked.
func (l *lane) unprimed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.primed
}

// overdue lets the first questions be asked without all detectors.
func (l *lane) overdue() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prime(true)
}
