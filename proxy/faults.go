package proxy

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/compile"
	"github.com/outrigger-mesh/outrigger/proxy/faults"
	"github.com/outrigger-mesh/outrigger/resilience/fault"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

func (p *Proxy) faultViews() admin.FaultViews {
	return admin.FaultViews{List: p.viewFaults, Start: p.startFault, Stop: p.stopFault}
}

// startFault begins the fault that an operator asks for.
func (p *Proxy) startFault(o *admin.FaultOrder) (admin.FaultView, error) {
	refused := func(status int, err error) (admin.FaultView, error) {
		return admin.FaultView{}, &admin.OrderError{Status: status, Err: err}
	}
	if err := p.faults.Allowed(); err != nil {
		return refused(http.StatusForbidden, err)
	}
	p.mu.Lock()
	loaded := p.loaded
	p.mu.Unlock()
	if loaded == nil {
		return refused(http.StatusConflict, errors.New("no configuration is in use yet"))
	}
	f, err := loaded.Config.ParseFault(o.Fault)
	if err != nil {
		return refused(http.StatusBadRequest, mistakes(err))
	}
	pf, err := compile.Fault(loaded, f)
	if err != nil {
		return refused(http.StatusBadRequest, mistakes(err))
	}
	v, err := p.faults.Start(pf, o.By, o.Reason)
	if err != nil {
		return refused(faultStatus(err), err)
	}
	return p.faultView(&v), nil
}

// mistakes says what is wrong with a fault, without places in a file that there
// is none of.
func mistakes(err error) error {
	var list config.Problems
	if !errors.As(err, &list) {
		return err
	}
	lines := make([]string, len(list))
	for i := range list {
		lines[i] = strings.TrimSpace(list[i].Path + " " + list[i].Message)
	}
	return errors.New(strings.Join(lines, "; "))
}

func (p *Proxy) stopFault(name string) ([]admin.FaultView, error) {
	list, err := p.faults.Stop(name)
	if err != nil {
		return nil, &admin.OrderError{Status: faultStatus(err), Err: err}
	}
	views := []admin.FaultView{}
	for i := range list {
		views = append(views, p.faultView(&list[i]))
	}
	return views, nil
}

func faultStatus(err error) int {
	switch {
	case errors.Is(err, faults.ErrNotAllowed):
		return http.StatusForbidden
	case errors.Is(err, faults.ErrUnknown):
		return http.StatusNotFound
	case errors.Is(err, faults.ErrConflict):
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

func (p *Proxy) viewFaults() []admin.FaultView {
	list := p.faults.Views()
	views := make([]admin.FaultView, len(list))
	for i := range list {
		views[i] = p.faultView(&list[i])
	}
	return views
}

func (p *Proxy) faultView(f *faults.View) admin.FaultView {
	now := p.sweeper.Now()
	v := admin.FaultView{
		Name: f.Fault.Name, Cluster: f.Fault.Cluster, Direction: f.Fault.Direction.String(), Does: f.Fault.Config.Words(),
		Percent: f.Fault.Config.Percent, Count: f.Fault.Config.Count, Of: concerns(f), By: f.By, Reason: f.Reason,
		Began: p.wall(now, f.Began), Until: p.wall(now, f.Until), Ended: p.wall(now, f.End),
		State: f.Cause.String(), Words: f.Cause.Words(), Injected: map[string]uint64{}, Complete: f.Complete, Places: []admin.FaultPlace{},
	}
	if f.By == "" {
		v.By = "configuration"
	}
	if f.Would != fault.Runs {
		v.Would = f.Would.String()
	}
	for k, n := range f.Injected {
		if n > 0 {
			v.Injected[fault.Kind(k).String()] = n
		}
	}
	for i := range f.Places {
		pl := &f.Places[i]
		v.Places = append(v.Places, admin.FaultPlace{
			Cluster: pl.Cluster, Direction: pl.Direction.String(), Before: phase(&pl.Before), During: phase(&pl.During), After: phase(&pl.After),
		})
	}
	return v
}

// concerns says in words who may meet a fault.
func concerns(f *faults.View) string {
	var list []string
	add := func(name, value string) {
		if value != "" {
			list = append(list, name+" "+value)
		}
	}
	add("route", f.Fault.Route)
	add("requests with", f.Fault.Conditions)
	add("callers", strings.Join(f.Fault.From, " or "))
	add("endpoint", f.Fault.Endpoint)
	return strings.Join(list, ", ")
}

func phase(n *faults.Numbers) admin.FaultPhase {
	p := admin.FaultPhase{
		Seconds: n.Over.Round(time.Millisecond).Seconds(), Requests: n.Requests, Good: n.Good, Failed: n.Failed, Met: n.Met, MetFailed: n.MetFailed, ByFault: n.ByFault,
		Retries: n.Retries, RetriesByFault: n.Again, Ejections: n.Ejections, Openings: n.Openings,
		P50Ms: millis(n.P50), P90Ms: millis(n.P90), P99Ms: millis(n.P99),
	}
	if n.Requests > 0 {
		share := 100 * float64(n.Good) / float64(n.Requests)
		p.SuccessPercent = &share
	}
	return p
}
