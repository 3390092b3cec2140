package proxy

import (
	"bytes"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// newOutcomes makes the outcome log, which may be off until a reload. The
// registry is there already.
func (p *Proxy) newOutcomes(loaded *config.Loaded) (err error) {
	p.outcomes, err = outcomes.New(outcomes.Options{
		Config: loaded.Config.Telemetry.Outcomes, Now: p.sweeper.Now, State: p.outcomeState, Log: p.log,
	})
	if err != nil {
		return loaded.Problem("telemetry.outcomes.path", err.Error())
	}
	p.registry.Outcomes = p.outcomes
	return nil
}

// setOutcomes lets the log go by loaded.
func (p *Proxy) setOutcomes(loaded *config.Loaded) error {
	if err := p.outcomes.Configure(loaded.Config.Telemetry.Outcomes); err != nil {
		return config.Problems{loaded.Problem("telemetry.outcomes.path", err.Error())}
	}
	return nil
}

// configured is the configuration in force as the outcome log keeps it.
type configured struct {
	version uint64
	text    func() string // written out when it is asked for: few keep an outcome log
}

// logConfigured tells the log which configuration is in force.
func (p *Proxy) logConfigured(version uint64, loaded *config.Loaded) {
	c := &configured{version, sync.OnceValue(func() string {
		var b bytes.Buffer
		_ = loaded.WriteEffective(&b) // into memory
		return b.String()
	})}
	p.inForce.Store(c)
	if p.outcomes.On() {
		p.outcomes.Event(c.event(p.sweeper.Now()))
	}
}

func (c *configured) event(now time.Duration) outcomes.Event {
	return outcomes.Event{Kind: outcomes.Configured, At: now, Version: c.version, Text: c.text()}
}

// outcomeState says how things stand, as each file of the log begins with it.
func (p *Proxy) outcomeState(add func(outcomes.Event)) {
	add(outcomes.Event{Kind: outcomes.Began, At: p.sweeper.Now(), Text: p.version})
	if c := p.inForce.Load(); c != nil {
		add(c.event(p.sweeper.Now()))
	}
	p.registry.OutcomeState(add)
}

// bindOutcomes lets the metrics read the log's counts.
func (p *Proxy) bindOutcomes(g *telemetry.ProcessGauges) {
	g.OutcomeRecords = func() uint64 { return p.outcomes.Stats().Records }
	g.OutcomeBytes = func() uint64 { return p.outcomes.Stats().Bytes }
	g.OutcomeDropped = func() uint64 { return p.outcomes.Stats().Dropped }
	g.OutcomeSize = func() float64 { return float64(p.outcomes.Stats().Size) }
}
