package proxy

import (
	"errors"
	"net/http"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/hand"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// order obeys what an operator asks for through the admin API.
func (p *Proxy) order(o *admin.Order) (admin.OrderView, error) {
	v := admin.OrderView{Act: o.Act, Cluster: o.Cluster, Endpoints: []string{}}
	want := &upstream.Order{Cluster: o.Cluster, Endpoints: o.Endpoints, For: o.Time, By: o.By, Reason: o.Reason}
	var given []hand.Order
	var err error
	switch o.Act {
	case "eject":
		given, err = p.registry.Eject(want)
	case "pin":
		given, err = p.registry.Pin(want)
	default:
		v.Endpoints, err = p.registry.TakeBack(want)
	}
	if err != nil {
		return v, &admin.OrderError{Status: orderStatus(err), Err: err}
	}
	for i := range given {
		v.Endpoints = append(v.Endpoints, given[i].Endpoint)
		v.Until = p.wall(p.sweeper.Now(), given[i].Until)
	}
	return v, nil
}

func orderStatus(err error) int {
	switch {
	case errors.Is(err, upstream.ErrUnknown):
		return http.StatusNotFound
	case errors.Is(err, upstream.ErrNoEffect), errors.Is(err, hand.ErrTooMany):
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

func (p *Proxy) handView(e *upstream.EndpointState, v *admin.EndpointView, now time.Duration) {
	v.Absent = e.Absent
	if e.Absent {
		v.State = ""
	}
	if e.Order == nil && e.Standing == hand.Free {
		return
	}
	v.Hand = &admin.HandView{State: e.Standing.String()}
	if o := e.Order; o != nil {
		v.Hand.Act, v.Hand.By, v.Hand.Reason = o.Act.String(), o.By, o.Reason
		v.Hand.Since, v.Hand.Until = p.wall(now, o.At), p.wall(now, o.Until)
	}
}
