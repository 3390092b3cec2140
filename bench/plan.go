package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/report"
)

// What it takes to start a proxy until it serves and to end it again, and to
// open an idle connection. They are seen on two slow cores, not promised.
const (
	startTime = 500 * time.Millisecond
	idleTime  = 400 * time.Microsecond
)

// plan is how long a scenario takes, in all likelihood.
type plan struct {
	scenario string
	time     time.Duration
}

// plans are those of a run with the given subjects, by the number of slices.
func (o *options) plans(subjects []subject) []plan {
	var list []plan
	for _, name := range scenarioNames {
		if !slices.Contains(o.scenarios, name) {
			continue
		}
		p := plan{scenario: name}
		switch name {
		case report.Latency:
			c := o.plainCourse(name)
			p.time = o.setUpTime(c, takers(c, subjects)) + o.roundsTime(1+takers(c, subjects), o.latencyTime())
		case report.Idle, report.IdleH2:
			c := o.idleCourse(name)
			each := startTime + o.sliceTime()/2 + 3*o.idleRest()/2 + time.Duration(o.idle+idleWarm)*idleTime
			p.time = startTime + time.Duration(o.idleRounds()*takers(c, subjects))*each
		case report.Handshake:
			c := o.handshakeCourse()
			p.time = o.setUpTime(c, takers(c, subjects)) + o.roundsTime(takers(c, subjects), o.sliceTime()) + o.profileTime()
		default:
			for _, c := range o.courses(name) {
				n := takers(c, subjects)
				p.time += o.setUpTime(c, n) + time.Duration(len(c.levels))*o.roundsTime(n, o.sliceTime()) + o.profileTime()
			}
		}
		list = append(list, p)
	}
	return list
}

func takers(c *course, subjects []subject) int {
	n := 0
	for _, s := range subjects {
		if s.takes(c) == nil {
			n++
		}
	}
	return n
}

func (o *options) setUpTime(c *course, n int) time.Duration {
	return startTime + time.Duration(n)*(time.Duration(len(c.chain))*startTime+o.sliceTime()/2)
}

// roundsTime is what runner.rounds takes.
func (o *options) roundsTime(beds int, length time.Duration) time.Duration {
	first := o.warmup() + o.sliceTime()/2
	return time.Duration(beds) * (first + time.Duration(o.slices)*(o.warmup()+length))
}

// profileTime is the slice that Outrigger's profile is taken in, with what
// reads it.
func (o *options) profileTime() time.Duration {
	if !o.profile {
		return 0
	}
	return time.Duration(o.profileSeconds()+2) * time.Second
}

// describePlans is the plan in words, with its sum.
func describePlans(plans []plan) string {
	var b strings.Builder
	var sum time.Duration
	for _, p := range plans {
		sum += p.time
		fmt.Fprintf(&b, "  %-12s %4.0f s\n", p.scenario, p.time.Seconds())
	}
	return fmt.Sprintf("about %v:\n%s", sum.Round(time.Second), b.String())
}
