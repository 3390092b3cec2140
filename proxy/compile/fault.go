package compile

import (
	"strconv"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// faults prepares those of the configuration.
func (c *compiler) faults() {
	for i := range c.cfg.Faults.Rules {
		if f := c.fault("faults.rules["+strconv.Itoa(i)+"]", &c.cfg.Faults.Rules[i]); f != nil {
			c.draft.faults = append(c.draft.faults, f)
		}
	}
}

func (c *compiler) fault(path string, f *config.Fault) *plan.Fault {
	match, ok := c.match(path+".match", &f.Match)
	if !ok {
		return nil
	}
	p := &plan.Fault{
		Name: f.Name, Cluster: f.To, Direction: telemetry.Outbound, Text: f.Summary(), Route: f.Route, Match: match, OnlyHTTP: f.OnlyHTTP(),
		From: f.From, Endpoint: f.Endpoint, Config: f.Inject, Stop: f.Stop, For: f.For,
	}
	if p.Conditions = conditions(&f.Match); p.Conditions == "it takes all" {
		p.Conditions = ""
	}
	if f.Inbound {
		p.Cluster, p.Direction = c.cfg.Service.Name, telemetry.Inbound
	}
	return p
}

// Fault prepares a fault that was ordered by hand, read by Config.ParseFault.
func Fault(loaded *config.Loaded, f *config.Fault) (*plan.Fault, error) {
	c := &compiler{in: Input{Loaded: loaded}, cfg: loaded.Config, draft: &Draft{}}
	p := c.fault("", f)
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	return p, nil
}
