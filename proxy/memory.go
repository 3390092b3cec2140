package proxy

import (
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// newBudget makes the memory budget; of 0 bytes there is none.
func (p *Proxy) newBudget(bytes int64) *memory.Budget {
	return memory.New(memory.Options{Bytes: bytes, Log: p.log, Relieve: p.relieve, Rested: p.resting.Total})
}

// fitWindows makes what one HTTP/2 peer may have under way a small part of the
// budget.
func fitWindows(c *http2.Config, budget int64) {
	if budget <= 0 {
		return
	}
	c.ConnWindow = int(min(budget/128, http2.DefaultConnWindow))
	c.Window = c.ConnWindow / 4
	c.ConnBuffer = int(min(budget/16, http2.DefaultConnBuffer))
}

// relieve gives up what is held already; what is not taken any more is decided
// where it comes.
func (p *Proxy) relieve(l memory.Level) {
	p.registry.CloseIdle()
	if l < memory.Shed {
		return
	}
	for _, l := range p.all() {
		l.Relieve()
	}
}

// bindMemory lets the metrics read the budget.
func (p *Proxy) bindMemory(g *telemetry.ProcessGauges) {
	if p.memory.Bytes() == 0 {
		return
	}
	g.MemoryBudget = func() float64 { return float64(p.memory.Bytes()) }
	g.MemoryUsed = func() float64 { return float64(p.memory.Used()) }
	g.MemoryLevel = func() float64 { return float64(p.memory.Level()) }
	for l := memory.Trim; l <= memory.Shed; l++ {
		g.MemoryLevels = append(g.MemoryLevels, telemetry.Named{Name: l.String(), Value: func() uint64 { return p.memory.Entered(l) }})
	}
	for k := range memory.Gifts {
		g.MemoryGivenUp = append(g.MemoryGivenUp, telemetry.Named{Name: k.String(), Value: func() uint64 { return p.memory.Given(k) }})
	}
}

func (p *Proxy) viewMemory() *admin.MemoryView {
	b := p.memory
	if b.Bytes() == 0 {
		return nil
	}
	v := &admin.MemoryView{Budget: b.Bytes(), Used: b.Used(), Level: b.Level().String(), GivenUp: map[string]uint64{}}
	for k := range memory.Gifts {
		v.GivenUp[k.String()] = b.Given(k)
	}
	return v
}
