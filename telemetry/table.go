package telemetry

import (
	"fmt"
	"io"
	"strings"
)

// metricID is a place in the table.
type metricID uint8

const (
	mListenerConnections metricID = iota
	mListenerActive
	mListenerBytesIn
	mListenerBytesOut
	mListenerHandshakeFailures
	mListenerPlaintext
	mListenerAcceptErrors
	mListenerRefused
	mListenerProtocols
	mListenerIntercepted
	mListenerHeld
	mRouteRequests
	mRouteDuration
	mExchanges
	mExchangeDuration
	mExchangesActive
	mExchangesPending
	mTunnels
	mTunnelsActive
	mCalls
	mCallDuration
	mRetries
	mRetriesWithheld
	mRetryBudget
	mHedges
	mHedgesWithheld
	mLimitRejections
	mConcurrencyLimit
	mAdaptiveLimit
	mAdaptiveBaseline
	mAdaptiveLatency
	mQueueLength
	mQueueResults
	mQueueWait
	mRateDecisions
	mRateKeys
	mRateEvictions
	mRateShares
	mRateErrors
	mRateAsked
	mAdmission
	mBreakerState
	mBreakerOpenings
	mWouldHave
	mAffinity
	mLoadReports
	mSpills
	mPlaces
	mFailovers
	mOrders
	mFaults
	mFaultExchanges
	mUpstreamConnections
	mUpstreamActive
	mUpstreamIdle
	mUpstreamConnectFailures
	mClusterEndpoints
	mClusterAvailable
	mSubsetEndpoints
	mSubsetAvailable
	mSubsetFallbacks
	mSubsetRefused
	mEndpointAttempts
	mEndpointEjections
	mEndpointState
	mEndpointHand
	mEndpointBreaker
	mEndpointActive
	mEndpointEWMA
	mEndpointHealth
	mEndpointDraining
	mEndpointShare
	mEndpointWeight
	mHealthChanges
	mHealthChecks
	mDiscoveryAge
	mDiscoveryEndpoints
	mDiscoveryUpdates
	mDiscoveryErrors
	mIdentityExpiry
	mIdentityUpdates
	mConfigVersion
	mConfigReloads
	mConfigLastReload
	mAccessLogRecords
	mAccessLogDropped
	mSpansDropped
	mFloods
	mLedgerRecords
	mLedgerBytes
	mOutcomeRecords
	mOutcomeBytes
	mOutcomeDropped
	mOutcomeSize
	mDNSQueries
	mMeshAge
	mMeshFindings
	mMeshRefused
	mMemoryBudget
	mMemoryUsed
	mMemoryLevel
	mMemoryLevels
	mMemoryGivenUp
	mSeriesOverflowed
	mBuildInfo

	metricCount
)

type metricType uint8

const (
	counter metricType = iota
	gauge
	histogramType
)

func (t metricType) String() string { return [...]string{"counter", "gauge", "histogram"}[t] }

// metric is a line of the table: all that is known of a metric beforehand.
type metric struct {
	name   string // as Prometheus shows it, unit and suffix included
	typ    metricType
	unit   string // UCUM, as OpenTelemetry wants it
	labels string // the handle's labels first, then the metric's own
	help   string
}

func (m *metric) labelNames() []string { return strings.Fields(m.labels) }

var table = [metricCount]metric{
	mListenerConnections:       {"outrigger_listener_connections_total", counter, "{connection}", "direction listener", "Connections accepted."},
	mListenerActive:            {"outrigger_listener_connections_active", gauge, "{connection}", "direction listener", "Connections open now."},
	mListenerBytesIn:           {"outrigger_listener_received_bytes_total", counter, "By", "direction listener", "Bytes received from downstreams."},
	mListenerBytesOut:          {"outrigger_listener_sent_bytes_total", counter, "By", "direction listener", "Bytes sent to downstreams."},
	mListenerHandshakeFailures: {"outrigger_listener_handshake_failures_total", counter, "{handshake}", "direction listener kind", "TLS handshakes with downstreams that failed, by kind."},
	mListenerPlaintext:         {"outrigger_listener_plaintext_connections_total", counter, "{connection}", "direction listener", "Connections accepted without TLS by a permissive listener."},
	mListenerAcceptErrors:      {"outrigger_listener_accept_errors_total", counter, "{error}", "direction listener", "Failures to accept, for example for want of file descriptors."},
	mListenerIntercepted:       {"outrigger_listener_intercepted_connections_total", counter, "{connection}", "direction listener result", "Connections that the kernel redirected to the listener, by what became of them: virtual (the upstream with that address), direct (that instance of an upstream), service, passthrough, refused, loop, no_destination, early_passthrough, early_refused, hold_full, hold_expired."},
	mListenerHeld:              {"outrigger_listener_held_connections_total", counter, "{connection}", "direction listener", "Connections that were held because they came before the first plan."},
	mListenerRefused:           {"outrigger_listener_refused_connections_total", counter, "{connection}", "direction listener", "Connections closed at once, because of the connection limit or a drain."},
	mListenerProtocols:         {"outrigger_listener_protocol_connections_total", counter, "{connection}", "direction listener protocol how", "Connections by what they speak (http: HTTP of any version, as declared; tls: passed through; mesh: the transport between sidecars, which carries any) and how that was found: declared, detected from the first bytes, server_first or remembered (the endpoint spoke first), timeout (neither side said enough)."},

	mRouteRequests: {"outrigger_route_requests_total", counter, "{request}", "direction listener route result class", "Requests that took a route of a listener with several: who is answerable for how they ended (ok, downstream, upstream, local), and class of the status sent downstream."},
	mRouteDuration: {"outrigger_route_duration_seconds", histogramType, "s", "direction listener route", "How long the requests that took a route took, to their last byte."},

	mExchanges:        {"outrigger_exchanges_total", counter, "{exchange}", "cluster direction reason class", "Exchanges that ended, by reason and class of the status sent downstream (none: no response, or TCP)."},
	mExchangeDuration: {"outrigger_exchange_duration_seconds", histogramType, "s", "cluster direction", "How long exchanges took, to their last byte."},
	mExchangesActive:  {"outrigger_exchanges_active", gauge, "{exchange}", "cluster direction", "Exchanges under way now."},
	mExchangesPending: {"outrigger_exchanges_pending", gauge, "{exchange}", "cluster direction", "Exchanges waiting for an upstream connection now."},
	mTunnels:          {"outrigger_tunnels_total", counter, "{tunnel}", "cluster direction reason", "Switches to another protocol, such as WebSocket, that ended, by reason."},
	mTunnelsActive:    {"outrigger_tunnels_active", gauge, "{tunnel}", "cluster direction", "Switches to another protocol, such as WebSocket, under way now."},
	mCalls:            {"outrigger_grpc_calls_total", counter, "{call}", "cluster direction service method grpc_status", "gRPC calls that ended, by the number of the status that the caller got. Of a cluster, the first 256 methods that an endpoint has answered have series of their own; the service and method `_other_` stand for all others."},
	mCallDuration:     {"outrigger_grpc_call_duration_seconds", histogramType, "s", "cluster direction service method", "How long gRPC calls took, to their last byte."},
	mRetries:          {"outrigger_retries_total", counter, "{attempt}", "cluster direction reason", "Attempts after the first, by the reason that the one before failed for."},
	mRetriesWithheld:  {"outrigger_retries_withheld_total", counter, "{attempt}", "cluster direction why", "Failed attempts that were not tried again, and why; budget_spent is an exhausted retry budget."},
	mRetryBudget:      {"outrigger_retry_budget_balance", gauge, "{attempt}", "cluster direction", "Retries and hedges that the budget allows now."},
	mHedges:           {"outrigger_hedges_total", counter, "{attempt}", "cluster direction result", "Attempts that were started beside one that was slow to answer, by how they ended: won (it answered first), cancelled (another did, or nobody waited any more), failed."},
	mHedgesWithheld:   {"outrigger_hedges_withheld_total", counter, "{attempt}", "cluster direction why", "Attempts that were not started although one was slow to answer, and why; too_few_samples counts requests for which it was not known what is slow."},
	mLimitRejections:  {"outrigger_limit_rejections_total", counter, "{exchange}", "cluster direction limit", "Exchanges rejected by a limit."},
	mConcurrencyLimit: {"outrigger_concurrency_limit", gauge, "{exchange}", "cluster direction", "How many exchanges may be under way now, by all limits that are enforced: 0 for no limit."},
	mAdaptiveLimit:    {"outrigger_adaptive_limit", gauge, "{exchange}", "cluster direction", "The adaptive limit on exchanges under way, whether it is enforced or only observed."},
	mAdaptiveBaseline: {"outrigger_adaptive_baseline_seconds", gauge, "s", "cluster direction", "What the adaptive limit takes for the time to an answer where nobody waits for another."},
	mAdaptiveLatency:  {"outrigger_adaptive_latency_seconds", gauge, "s", "cluster direction", "The percentile of the times to an answer in the last interval that the adaptive limit has judged."},
	mQueueLength:      {"outrigger_queue_length", gauge, "{exchange}", "cluster direction", "Exchanges waiting for their turn now, because the limit on active ones is reached."},
	mQueueResults:     {"outrigger_queue_results_total", counter, "{exchange}", "cluster direction priority result", "What became of exchanges that would wait for their turn: entered, full (there was no room to wait), displaced (made room for another), delayed (waited longer than the target while the queue stood), waited_out (for the longest time allowed), too_late (the own deadline passed), gone (the caller went away), stopped (the proxy did)."},
	mQueueWait:        {"outrigger_queue_wait_seconds", histogramType, "s", "cluster direction", "How long those exchanges waited, whatever became of them."},
	mRateDecisions:    {"outrigger_rate_limit_decisions_total", counter, "{decision}", "cluster direction limit result", "Decisions of a rate limit: passed, limited (refused), would_limit (beyond the rate, and let pass in observe mode), unknown_passed and unknown_refused (who counts gave no answer)."},
	mRateKeys:         {"outrigger_rate_limit_keys", gauge, "{key}", "cluster direction limit", "Keys that have a bucket now."},
	mRateEvictions:    {"outrigger_rate_limit_evictions_total", counter, "{key}", "cluster direction limit", "Keys whose bucket was forgotten to make room for another's."},
	mRateShares:       {"outrigger_rate_limit_shares", gauge, "{instance}", "cluster direction limit", "Instances of the own service that the rate is divided among now."},
	mRateErrors:       {"outrigger_rate_limit_errors_total", counter, "{error}", "cluster direction limit kind", "Questions to who counts for several proxies that were not answered, by why."},
	mRateAsked:        {"outrigger_rate_limit_ask_duration_seconds", histogramType, "s", "cluster direction limit", "How long who counts for several proxies took to answer, or not to."},
	mAdmission:        {"outrigger_admission_rejection_ratio", gauge, "1", "cluster direction", "Share of requests that admission control holds back now, or would in observe mode; of several routes the largest."},
	mBreakerState:     {"outrigger_breaker_state", gauge, "", "cluster direction", "State of the circuit breaker, of several (breaker.scope) the one that refuses most: 0 closed, 1 half-open, 2 open."},
	mBreakerOpenings:  {"outrigger_breaker_openings_total", counter, "{opening}", "cluster direction", "Times that a circuit breaker of the cluster, its routes or its endpoints opened."},
	mWouldHave:        {"outrigger_would_have_total", counter, "{decision}", "cluster direction action", "What guards in observe mode would have done: ejected, broken (rejected by the breaker), limited, retried, denied, unhealthy (taken out by its active checks), rate_limited, cautious (less traffic for an endpoint under suspicion), throttled (held back by admission control), hedged."},
	mAffinity:         {"outrigger_affinity_total", counter, "{request}", "cluster direction result", "Affinity of clients by cookie: kept (it led to its endpoint), lost (it names none that may be used), given (the client got one)."},
	mLoadReports:      {"outrigger_load_reports_total", counter, "{report}", "cluster direction result", "Load that endpoints reported with their responses: ok, incomplete (without requests per second or utilization), malformed; expired is an endpoint's last report that has become too old."},
	mSpills:           {"outrigger_balance_spills_total", counter, "{attempt}", "cluster direction", "Attempts that went to another endpoint than their hash says, as that one had its bounded load."},
	mPlaces:           {"outrigger_balance_places_total", counter, "{attempt}", "cluster direction place", "Attempts by where their endpoints are, of clusters whose attempts are divided by zone or priority: zone (the proxy's own), region, elsewhere."},
	mFailovers:        {"outrigger_balance_failovers_total", counter, "{attempt}", "cluster direction", "Attempts that went to endpoints of a later priority than the first, or of another service as failover."},
	mOrders:           {"outrigger_hand_orders_total", counter, "{order}", "cluster direction order", "What operators have ordered by hand for endpoints: eject, pin, release, and expire for an order whose time was over."},

	mFaults:         {"outrigger_faults_injected_total", counter, "{attempt}", "cluster direction kind", "Attempts, and connections that are not HTTP, that met a fault made on purpose, by what it does: delay, abort, reset, bandwidth."},
	mFaultExchanges: {"outrigger_fault_exchanges_total", counter, "{exchange}", "cluster direction result", "Exchanges that ended and had met a fault made on purpose: ok, or failed and not by the caller's doing."},

	mUpstreamConnections:     {"outrigger_upstream_connections_total", counter, "{connection}", "cluster direction", "Connections made to endpoints."},
	mUpstreamActive:          {"outrigger_upstream_connections_active", gauge, "{connection}", "cluster direction", "Connections to endpoints in use now."},
	mUpstreamIdle:            {"outrigger_upstream_connections_idle", gauge, "{connection}", "cluster direction", "Connections to endpoints kept for later now."},
	mUpstreamConnectFailures: {"outrigger_upstream_connection_failures_total", counter, "{connection}", "cluster direction reason", "Connections to endpoints that could not be made, TLS included."},
	mClusterEndpoints:        {"outrigger_cluster_endpoints", gauge, "{endpoint}", "cluster direction", "Endpoints known now."},
	mClusterAvailable:        {"outrigger_cluster_endpoints_available", gauge, "{endpoint}", "cluster direction", "Endpoints that may be picked now."},

	mSubsetEndpoints: {"outrigger_subset_endpoints", gauge, "{endpoint}", "cluster direction subset", "Endpoints of the subset that are known now, without those that drain."},
	mSubsetAvailable: {"outrigger_subset_endpoints_available", gauge, "{endpoint}", "cluster direction subset", "Endpoints of the subset that may be picked now."},
	mSubsetFallbacks: {"outrigger_subset_fallbacks_total", counter, "{attempt}", "cluster direction subset", "Attempts that went to any endpoint of the cluster, as none of the subset may be used."},
	mSubsetRefused:   {"outrigger_subset_refused_total", counter, "{exchange}", "cluster direction subset", "Exchanges for which the subset had no endpoint."},

	mEndpointAttempts:  {"outrigger_endpoint_attempts_total", counter, "{attempt}", "cluster endpoint result", "Attempts that ended, by result as outlier detection counts it."},
	mEndpointEjections: {"outrigger_endpoint_ejections_total", counter, "{ejection}", "cluster endpoint", "Times that the endpoint was ejected."},
	mEndpointState:     {"outrigger_endpoint_state", gauge, "", "cluster endpoint", "State of the endpoint: 0 healthy, 1 ejected, 2 probation."},
	mEndpointHand:      {"outrigger_endpoint_hand", gauge, "", "cluster endpoint", "What an operator has ordered of the endpoint by hand: 0 nothing, 1 ejected, 2 pinned, 3 left out because others are pinned, 4 ejected, but used because all are."},
	mEndpointBreaker:   {"outrigger_endpoint_breaker_state", gauge, "", "cluster endpoint", "State of the endpoint's own circuit breaker (breaker.scope: endpoint): 0 closed, 1 half-open, 2 open."},
	mEndpointActive:    {"outrigger_endpoint_attempts_active", gauge, "{attempt}", "cluster endpoint", "Attempts under way now."},
	mEndpointEWMA:      {"outrigger_endpoint_latency_estimate_seconds", gauge, "s", "cluster endpoint", "The balancer's moving estimate of the endpoint's latency."},

	mEndpointHealth:   {"outrigger_endpoint_health", gauge, "", "cluster endpoint", "State of the endpoint by its active checks: 0 not checked yet, 1 healthy, 2 unhealthy."},
	mEndpointDraining: {"outrigger_endpoint_draining", gauge, "", "cluster endpoint", "Whether discovery says that the endpoint drains and gets nothing new: 1, else 0."},
	mEndpointShare:    {"outrigger_endpoint_share", gauge, "1", "cluster endpoint", "Part of its share of the attempts that caution leaves the endpoint: 1 for one that is under no suspicion."},
	mEndpointWeight:   {"outrigger_endpoint_reported_weight", gauge, "1", "cluster endpoint", "What the load that the endpoint reports makes of its weight in the catalog: 1 is the mean, which endpoints without reports have."},
	mHealthChanges:    {"outrigger_health_changes_total", counter, "{change}", "cluster endpoint to", "Changes of that state; the first one to healthy is not counted."},
	mHealthChecks:     {"outrigger_health_checks_total", counter, "{check}", "cluster direction result", "Active checks that ended, by result; local is a check that this proxy could not make, which changes nothing."},

	mDiscoveryAge:       {"outrigger_discovery_age_seconds", gauge, "s", "service", "Time since the service's data were last confirmed."},
	mDiscoveryEndpoints: {"outrigger_discovery_endpoints", gauge, "{endpoint}", "service", "Endpoints in the service's data."},
	mDiscoveryUpdates:   {"outrigger_discovery_updates_total", counter, "{update}", "service", "Changes received for the service."},
	mDiscoveryErrors:    {"outrigger_discovery_errors_total", counter, "{error}", "service", "Failed look-ups of the service."},

	mIdentityExpiry:  {"outrigger_identity_expiry_timestamp_seconds", gauge, "s", "", "When this proxy's SVID expires, in Unix time."},
	mIdentityUpdates: {"outrigger_identity_updates_total", counter, "{update}", "", "SVIDs received."},

	mConfigVersion:    {"outrigger_config_version", gauge, "", "", "Number of the plan in use."},
	mConfigReloads:    {"outrigger_config_reloads_total", counter, "{reload}", "result", "Attempts to load the configuration."},
	mConfigLastReload: {"outrigger_config_last_reload_timestamp_seconds", gauge, "s", "result", "When the configuration was last loaded, in Unix time."},

	mAccessLogRecords: {"outrigger_access_log_records_total", counter, "{record}", "", "Access-log records taken."},
	mAccessLogDropped: {"outrigger_access_log_dropped_records_total", counter, "{record}", "", "Access-log records lost because the sink was too slow or failed."},
	mSpansDropped:     {"outrigger_trace_dropped_spans_total", counter, "{span}", "", "Spans lost because the collector was too slow or failed."},
	mFloods:           {"outrigger_http2_floods_total", counter, "{connection}", "kind", "HTTP/2 connections ended because the peer sent too much of a kind that asks for work and brings nothing."},
	mLedgerRecords:    {"outrigger_ledger_records_total", counter, "{record}", "", "Exchanges whose decisions were kept in the ledger."},
	mLedgerBytes:      {"outrigger_ledger_bytes", gauge, "By", "", "Memory that the ledger takes."},
	mOutcomeRecords:   {"outrigger_outcomes_records_total", counter, "{record}", "", "Records written to the outcome log: exchanges with their attempts, and changes of state."},
	mOutcomeBytes:     {"outrigger_outcomes_written_bytes_total", counter, "By", "", "Bytes written to the outcome log."},
	mOutcomeDropped:   {"outrigger_outcomes_dropped_records_total", counter, "{record}", "", "Records lost because more came than was written, or the disk did not take them."},
	mOutcomeSize:      {"outrigger_outcomes_size_bytes", gauge, "By", "", "What the files of the outcome log take."},
	mDNSQueries:       {"outrigger_dns_queries_total", counter, "{query}", "outcome", "DNS queries by what became of them: answered from the names of the upstreams, unknown in the zones of these, forwarded to another server, failed there, or refused."},
	mMeshAge:          {"outrigger_consul_age_seconds", gauge, "s", "watch", "Time since Consul last confirmed what it says of this sidecar, by what that is; of several chains the oldest; -1 before the first answer."},
	mMeshFindings:     {"outrigger_consul_findings", gauge, "{finding}", "kind", "What is not done as Consul asks for it, by what became of it: refused, differs or ignored."},
	mMeshRefused:      {"outrigger_consul_refused", gauge, "1", "", "1 while the newest description of this sidecar cannot be served and the last good one is."},
	mMemoryBudget:     {"outrigger_memory_budget_bytes", gauge, "By", "", "The memory budget."},
	mMemoryUsed:       {"outrigger_memory_used_bytes", gauge, "By", "", "How much of the budget is in use."},
	mMemoryLevel:      {"outrigger_memory_level", gauge, "", "", "What is given up for want of memory: 0 nothing, 1 trim, 2 narrow, 3 refuse, 4 shed."},
	mMemoryLevels:     {"outrigger_memory_levels_total", counter, "{time}", "level", "How often a level was entered."},
	mMemoryGivenUp:    {"outrigger_memory_given_up_total", counter, "{thing}", "what", "What was given up for want of memory."},
	mSeriesOverflowed: {"outrigger_metric_series_overflowed_total", counter, "{series}", "metric", "Series that found no room in their metric's budget."},
	mBuildInfo:        {"outrigger_build_info", gauge, "", "version commit go_version", "Always 1; the labels say what is running."},
}

// WriteReference writes the table of all metrics as Markdown.
func WriteReference(w io.Writer) error {
	_, err := fmt.Fprint(w, `# Metrics

`+"`/metrics` on the admin server. Metrics named `go_…`, `process_…` and `target_info`"+` are the usual ones of Go
programs and of OpenTelemetry. A series appears when its handle is bound or, where a label has a fixed set of
values, when it is first counted; it disappears when its listener, cluster, endpoint or service is gone.

`+fmt.Sprintf("A metric has at most %d series. What goes beyond is added up in one more, whose labels all say", DefaultMaxSeries)+`
`+"`_overflow`; gauges beyond are left out. `outrigger_metric_series_overflowed_total`"+` counts them.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
`)
	if err != nil {
		return err
	}
	for i := range table {
		m := &table[i]
		labels := "–"
		if names := m.labelNames(); len(names) > 0 {
			labels = "`" + strings.Join(names, "`, `") + "`"
		}
		if _, err := fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", m.name, m.typ, labels, m.help); err != nil {
			return err
		}
	}
	return nil
}
