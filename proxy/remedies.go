package proxy

import (
	"slices"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
)

// remedies are by reason the settings that decide about such an end, as keys of
// the policy or of inbound. With a leading dot they are keys of the whole file.
var remedies = [outcome.Count][]string{
	outcome.NoEndpoints:       {"balance.panic_percent", "outlier.max_ejected_percent", "health"},
	outcome.ConnectTimeout:    {"connect_timeout"},
	outcome.PeerIdentity:      {"identities", ".identity.service_id"},
	outcome.NoIdentity:        {".identity.workload_api", ".identity.files.cert"},
	outcome.TryTimeout:        {"retry.per_try_timeout"},
	outcome.BreakerOpen:       {"breaker.failure_percent", "breaker.consecutive_failures", "breaker.open_for"},
	outcome.LimitConnections:  {"limits.max_connections"},
	outcome.LimitPending:      {"limits.max_pending"},
	outcome.LimitRequests:     {"limits.max_requests", "limits.max_requests_per_endpoint", "limits.queue.size", "limits.queue", "adaptive.max_limit"},
	outcome.QueueTimeout:      {"limits.queue.max_wait", "limits.queue.target", "limits.max_requests", "adaptive.max_limit"},
	outcome.Throttled:         {"admission.multiplier", "admission.max_rejection_percent", "admission.minimum_requests"},
	outcome.HeadTooLarge:      {".http.max_head_bytes", ".http.max_fields"},
	outcome.DownstreamTimeout: {".http.head_timeout"},
	outcome.Draining:          {".drain.timeout"},
	outcome.Overload:          {".memory.budget"},
	outcome.MaxLifetime:       {"websocket.max_lifetime"},
	outcome.RateUnknown:       {".rate_limiters.grpc.timeout", ".rate_limiters.redis.timeout"},
}

// retryRemedies are the same by the answer to whether another attempt may follow.
var retryRemedies = map[retry.Why][]string{
	retry.AttemptsSpent:     {"retry.attempts"},
	retry.NotIdempotent:     {"retry.non_idempotent"},
	retry.BodyNotKept:       {"retry.max_body_bytes"},
	retry.BudgetSpent:       {"retry.budget_percent", "retry.budget_min_per_second"},
	retry.DeadlineTooNear:   {"timeout"},
	retry.NotConfigured:     {"retry.on", "retry.attempts"},
	retry.RetryAfterTooLong: {"retry.retry_after_max"},
	retry.CallerRetries:     {"retry.layer"},
	retry.Observed:          {"retry.mode"},
}

// remedies returns the settings that would have changed how the exchange ended.
func (w *whyView) remedies() []admin.SettingView {
	list := []admin.SettingView{}
	e := w.e
	if !e.Failed() {
		return list
	}
	add := func(s config.Setting, ok bool) {
		v := admin.SettingView(s)
		if ok && !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	keys := remedies[e.Reason]
	switch e.Reason {
	case outcome.Denied:
		add(w.rule())
	case outcome.NoRoute:
		add(w.settings.At(e.RoutePath))
	case outcome.RateLimited:
		add(w.rateLimit("rate.requests", "rate", "scope"))
	case outcome.RateUnknown:
		add(w.rateLimit("on_error", "scope"))
	case outcome.FaultInjected:
		add(w.fault())
	case outcome.RequestTimeout:
		if e.DeadlineBy == ledger.PolicyDeadline {
			keys = []string{"timeout"}
		}
	case outcome.StreamIdle:
		switch {
		case e.TCP():
			keys = []string{"tcp_idle_timeout"}
		case e.Status == 101:
			keys = []string{"websocket.idle_timeout"}
		default:
			keys = []string{"stream_idle_timeout"}
		}
	}
	for _, key := range keys {
		add(w.setting(key))
	}
	if a := w.last(); a != nil && a.Asked {
		for _, key := range retryRemedies[a.Why] {
			add(w.setting(key))
		}
	} else if a != nil && e.MaxAttempts <= 1 {
		add(w.setting("retry.attempts"))
	}
	return list
}

// timers are the values that were in force, with where they came from. A value
// is that of the exchange, also where its configuration is no longer known.
func (w *whyView) timers() []admin.SettingView {
	e := w.e
	list := []admin.SettingView{}
	add := func(key, value string) {
		s, ok := w.setting(key)
		if !ok {
			s = config.Setting{Path: key, Origin: "unknown"}
			if w.cfg != nil {
				s.Origin = "fixed"
			}
		}
		list = append(list, admin.SettingView{Path: s.Path, Value: value, Origin: s.Origin})
	}
	if e.Cluster == "" {
		return list
	}
	if e.TCP() {
		add("tcp_idle_timeout", e.StreamIdle.String())
	} else {
		add("timeout", e.Timeout.String())
		add("stream_idle_timeout", e.StreamIdle.String())
	}
	add("connect_timeout", e.ConnectTimeout.String())
	if !e.Inbound { // towards the own application it is fixed
		add("retry.attempts", strconv.Itoa(e.MaxAttempts))
		if !e.TCP() {
			add("retry.per_try_timeout", e.PerTryTimeout.String())
		}
	}
	return list
}

// setting returns what decides about a key for the exchange: the route's own
// value, else that of the policy, or of inbound.
func (w *whyView) setting(key string) (config.Setting, bool) {
	if rest, ok := strings.CutPrefix(key, "."); ok {
		return w.settings.At(rest)
	}
	base := "inbound"
	if !w.e.Inbound {
		base = config.PolicyPath(w.e.Cluster)
	}
	return w.settings.Deciding(key, w.e.RoutePath, base)
}

// rateLimit returns the first of keys that is written of the limit that refused,
// which the cause names.
func (w *whyView) rateLimit(keys ...string) (config.Setting, bool) {
	if w.cfg == nil {
		return config.Setting{}, false
	}
	base, limits := "inbound", w.cfg.Inbound.RateLimits
	if !w.e.Inbound {
		base, limits = config.PolicyPath(w.e.Cluster), w.cfg.Policy(w.e.Cluster).RateLimits
	}
	for i, l := range limits {
		if strings.HasSuffix(w.e.Detail, " "+l.Name) {
			return w.settings.At(base+".rate_limits["+strconv.Itoa(i)+"]", keys...)
		}
	}
	return config.Setting{}, false
}

// fault returns the name of the fault that ended the exchange; for one that was
// ordered by hand whether there may be any.
func (w *whyView) fault() (config.Setting, bool) {
	if w.cfg == nil {
		return config.Setting{}, false
	}
	for i := range w.cfg.Faults.Rules {
		if strings.HasPrefix(w.e.Detail, "fault "+w.cfg.Faults.Rules[i].Name+": ") {
			return w.settings.At("faults.rules["+strconv.Itoa(i)+"]", "name")
		}
	}
	return w.settings.At("faults.allow")
}

// rule returns the authorization rule that decided.
func (w *whyView) rule() (config.Setting, bool) {
	if w.cfg == nil {
		return config.Setting{}, false
	}
	return w.settings.Rule(w.cfg, w.e.Rule)
}
