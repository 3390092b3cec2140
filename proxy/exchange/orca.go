package exchange

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/orca"
)

// hearHead takes the load that the endpoint reports out of the response's head,
// which begins b. Of several reports the first counts.
func (x *exchange) hearHead(cfg *orca.Config, b []byte) {
	told := false
	for i := range x.res.Fields {
		f := &x.res.Fields[i]
		if f.ID != http1.Other {
			continue
		}
		is, bin := reports(f.Name.Of(b))
		if !is {
			continue
		}
		if !told {
			x.cl.Reported(x.ep, cfg, x.at, f.Value.Of(b), bin)
			told = true
		}
		f.Drop = f.Drop || !cfg.Forward
	}
}

// reports reports whether name is that of a field that tells of load, and which.
func reports(name []byte) (is, bin bool) {
	switch len(name) {
	case len(orca.Field):
		return bytes.EqualFold(name, []byte(orca.Field)), false
	case len(orca.FieldBin):
		return bytes.EqualFold(name, []byte(orca.FieldBin)), true
	}
	return false, false
}

// hearTrailers does the same with trailers, which are field lines, and returns what
// is to be passed on. That may be memory of x.
func (x *exchange) hearTrailers(lines []byte) []byte {
	cfg := x.pol.Balance.ORCA
	if cfg == nil || len(lines) == 0 {
		return lines
	}
	told, kept := false, 0 // the bytes before kept are in x.trailers, where some were left out
	for at := 0; at < len(lines); {
		end := len(lines)
		if i := bytes.IndexByte(lines[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		line := lines[at:end]
		if name, value, ok := bytes.Cut(line, colon); ok {
			if is, bin := reports(name); is {
				if !told {
					// The head may have come long ago.
					x.cl.Reported(x.ep, cfg, max(x.at, x.s.srv.Sweeper.Soon()), bytes.TrimSpace(value), bin)
				}
				if !cfg.Forward {
					if !told {
						x.room(len(lines))
					}
					x.trailers = append(x.trailers, lines[kept:at]...)
					kept = end
				}
				told = true
			}
		}
		at = end
	}
	if kept == 0 {
		return lines
	}
	x.trailers = append(x.trailers, lines[kept:]...)
	return x.trailers
}

// room makes x.trailers empty, with room for n bytes.
func (x *exchange) room(n int) {
	if cap(x.trailers) < n {
		if x.trailers != nil {
			wire.Put(x.trailers)
		}
		if x.trailers = wire.GetSmall(); n > wire.Small {
			wire.Put(x.trailers)
			x.trailers = wire.GetLarge()
		}
	}
	x.trailers = x.trailers[:0]
}

// hearing is a response's body of which the trailers are heard.
type hearing struct {
	source
	x *exchange
}

// Trailers implements source.
func (h *hearing) Trailers() []byte { return h.x.hearTrailers(h.source.Trailers()) }

// hear is from, or that with its trailers heard where the policy asks for it.
func (x *exchange) hear(from source) source {
	if x.pol.Balance.ORCA == nil {
		return from
	}
	x.hearing = hearing{from, x}
	return &x.hearing
}
