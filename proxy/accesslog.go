package proxy

import (
	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// newAccessLog opens the access log, which may be off until a reload.
func newAccessLog(loaded *config.Loaded) (*telemetry.AccessLog, error) {
	a := &loaded.Config.Telemetry.AccessLog
	l, err := telemetry.NewAccessLog(telemetry.AccessLogConfig{Path: a.Path, LeaveOut: leftOut(a)})
	if err != nil {
		return nil, loaded.Problem("telemetry.access_log.path", err.Error())
	}
	return l, nil
}

// leftOut is the share of successful exchanges without a record.
func leftOut(a *config.AccessLog) float64 { return 1 - a.SamplePercent/100 }

// changeAccessLog prepares the access log to go by loaded.
func (p *Proxy) changeAccessLog(loaded *config.Loaded) (*telemetry.AccessChange, error) {
	a := &loaded.Config.Telemetry.AccessLog
	c, err := p.access.Prepare(a.Path, leftOut(a))
	if err != nil {
		return nil, config.Problems{loaded.Problem("telemetry.access_log.path", err.Error())}
	}
	return c, nil
}

// Reopen opens the access log's file anew, after log rotation has moved it.
func (p *Proxy) Reopen() {
	if err := p.access.Reopen(); err != nil {
		p.log.Error("cannot reopen the access log; the old file stays in use", "event", "reopen_failed", "error", err)
	}
}
