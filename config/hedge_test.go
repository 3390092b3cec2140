package config

import (
	"reflect"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

func TestRouteHedge(t *testing.T) {
	policy := hedge.Default()
	policy.Delay, policy.MinSamples = 30*time.Millisecond, 7
	var none *RouteHedge
	if got := none.Apply(&policy); got != &policy || none.Apply(nil) != nil {
		t.Errorf("a route without changes has %+v", got)
	}
	off := &RouteHedge{}
	off.setOff()
	if !off.isOff() || off.Apply(&policy) != nil {
		t.Error("off is not off")
	}
	if got, want := (&RouteHedge{}).Apply(nil), hedge.Default(); !reflect.DeepEqual(*got, want) {
		t.Errorf("where the policy has none it is %+v", *got)
	}
	observe, p99, three, yes := guard.Observe, hedge.Percentile(99), 3, true
	got := (&RouteHedge{Mode: &observe, Percentile: &p99, MaxAttempts: &three, NonIdempotent: &yes, NonFatalStatuses: []retry.GRPCStatus{10}}).Apply(&policy)
	want := hedge.Config{Mode: observe, Percentile: 99, MinDelay: time.Millisecond, MinSamples: 7, MaxAttempts: 3, NonIdempotent: true, NonFatalStatuses: []retry.GRPCStatus{10}}
	if !reflect.DeepEqual(*got, want) || policy.Delay == 0 {
		t.Errorf("all changes give %+v, want %+v", *got, want)
	}
	delay := time.Second
	if got := (&RouteHedge{Delay: &delay}).Apply(&policy); got.Delay != delay || got.Percentile != 95 {
		t.Errorf("a delay gives %+v", *got)
	}
}
