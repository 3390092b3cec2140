"use strict";

// All text reaches the page as text nodes, never as HTML: names and error
// texts come from peers.
const $ = (id) => document.getElementById(id);

function el(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  for (const c of children) if (c !== null && c !== undefined) e.append(c);
  return e;
}

const pill = (text, kind) => el("span", "pill " + (kind || ""), text);
const td = (className, ...children) => el("td", className, ...children);
const num = (...children) => td("num", ...children);

function short(ms) {
  ms = Math.abs(ms);
  if (ms < 10000) return (ms / 1000).toFixed(1) + "s";
  const s = Math.round(ms / 1000);
  if (s < 60) return s + "s";
  if (s < 3600) return Math.floor(s / 60) + "m " + (s % 60) + "s";
  if (s < 172800) return Math.floor(s / 3600) + "h " + Math.floor((s % 3600) / 60) + "m";
  return Math.floor(s / 86400) + "d";
}

function count(n) {
  if (n < 10000) return String(n);
  if (n < 1e6) return (n / 1e3).toFixed(n < 1e5 ? 1 : 0) + "k";
  if (n < 1e9) return (n / 1e6).toFixed(n < 1e8 ? 1 : 0) + "M";
  return (n / 1e9).toFixed(1) + "G";
}

const millis = (n) => (n === 0 ? "–" : n < 100 ? n.toFixed(1) + " ms" : Math.round(n) + " ms");
const ago = (t, now) => (t ? short(now - Date.parse(t)) + " ago" : "–");

function ahead(t, now) {
  if (!t) return "–";
  const ms = Date.parse(t) - now;
  return ms < 0 ? short(ms) + " ago" : "in " + short(ms);
}

// Rates come from the counters of two answers, one second or so apart.
let before = null;

function rates(v, now) {
  const is = { at: now, clusters: new Map(), endpoints: new Map() };
  for (const c of v.clusters) is.clusters.set(c.direction + " " + c.name, [c.requests, c.failures]);
  for (const e of v.endpoints) is.endpoints.set(e.cluster + " " + e.address + " " + e.id, [e.requests, e.failures]);
  const was = before;
  before = is;
  return (kind, key) => {
    if (!was || is.at - was.at < 200) return null;
    const a = was[kind].get(key);
    const b = is[kind].get(key);
    if (!a || !b || b[0] < a[0]) return null;
    const seconds = (is.at - was.at) / 1000;
    return { perSecond: (b[0] - a[0]) / seconds, failed: (b[1] - a[1]) / seconds };
  };
}

function rateCell(r) {
  if (!r) return num("–");
  return num(r.perSecond < 10 ? r.perSecond.toFixed(1) : count(Math.round(r.perSecond)));
}

function successCell(r, requests, failures) {
  // The last second if there was traffic in it, otherwise all that was ever counted.
  const [n, bad] = r && r.perSecond > 0 ? [r.perSecond, r.failed] : [requests, failures];
  if (n === 0) return num("–");
  const share = Math.min(100, Math.max(0, 100 * (1 - bad / n)));
  // Never rounded up to 100: one failure in a million is still one.
  const text = (share === 100 ? "100" : share > 99.9 ? Math.min(share, 99.99).toFixed(2) : share.toFixed(1)) + " %";
  return num(el("span", share < 95 ? "text-bad" : share < 99.9 ? "text-warn" : "", text));
}

function fill(table, heads, rows, empty) {
  if (rows.length === 0) {
    table.replaceChildren(el("tbody", "", el("tr", "", td("empty", empty))));
    return;
  }
  const head = el("tr", "", ...heads.map((h) => el("th", h.startsWith("#") ? "num" : "", h.replace("#", ""))));
  table.replaceChildren(el("thead", "", head), el("tbody", "", ...rows));
}

function meter(l) {
  const text = l.max ? count(l.value) + " / " + count(l.max) : count(l.value);
  const cell = td("", text);
  if (l.max) {
    const bar = el("progress");
    bar.max = l.max;
    bar.value = Math.min(l.value, l.max);
    cell.append(el("span", "meter" + (l.value >= 0.8 * l.max ? " hot" : ""), bar));
  }
  if (l.rejected) cell.append(el("span", "sub text-bad", count(l.rejected) + " rejected"));
  return cell;
}

function breaker(b, now) {
  if (!b) return td("text-soft", "none");
  const kinds = { closed: "good", half_open: "warn", open: "bad" };
  const cell = td("", pill(b.state.replace("_", "-"), kinds[b.state]));
  if (b.mode === "observe") cell.append(" ", pill("observe"));
  let sub = "";
  if (b.state === "open" && b.until) sub = "probe " + ahead(b.until, now);
  else if (b.requests) sub = count(b.failures) + " of " + count(b.requests) + " failed";
  if (b.of) sub = b.of + (sub ? " · " + sub : "");
  if (b.opened) sub += (sub ? " · " : "") + "opened " + count(b.opened) + "×";
  if (b.would_have_rejected) sub += (sub ? " · " : "") + "would have rejected " + count(b.would_have_rejected);
  if (sub) cell.append(el("span", "sub", sub));
  return cell;
}

// The limit on active requests, who waits for a turn, and how the limit was found.
function active(c) {
  const cell = meter(c.limits.requests);
  const gates = c.gates || [];
  const line = (kind, text) => cell.append(el("span", "sub " + kind, text));
  for (const g of gates) {
    const of = g.route ? g.route + ": " : "";
    if (g.route) line("", of + count(g.active) + (g.most ? " / " + count(g.most) : "") + (g.rejected ? ", " + count(g.rejected) + " rejected" : ""));
    if (g.queue && g.queue.waiting) line(g.queue.standing ? "text-bad" : "text-warn", of + count(g.queue.waiting) + " of " + count(g.queue.size) + " wait, " + millis(g.queue.oldest_ms) + (g.queue.standing ? ", standing" : ""));
    if (g.would_most) line("", of + g.would_most + " observed");
    if (g.adaptive) line("", of + "adaptive " + count(g.adaptive.limit) + (g.adaptive.learning ? ", learning" : "") + (g.adaptive.baseline_ms ? " · alone " + millis(g.adaptive.baseline_ms) + ", now " + millis(g.adaptive.latency_ms) : ""));
  }
  const q = c.queue_results || {};
  const turned = ["full", "displaced", "delayed", "waited_out", "too_late"].filter((k) => q[k]).map((k) => count(q[k]) + " " + k.replace("_", " "));
  if (q.entered) line("", count(q.entered) + " waited and entered");
  if (turned.length) line("", turned.join(", "));
  return cell;
}

function clusters(v, now, rate) {
  const rows = v.clusters.map((c) => {
    const r = rate("clusters", c.direction + " " + c.name);
    const share = td("", c.available + " / " + c.endpoints);
    if (c.ejected) share.append(" ", pill(c.ejected + " ejected", "bad"));
    if (c.unhealthy) share.append(" ", pill(c.unhealthy + " unhealthy", "bad"));
    if (c.panic) share.append(" ", pill("panic", "bad"));
    const name = td("group", c.name);
    name.append(el("span", "sub", [c.direction, c.protocol].filter(Boolean).join(" · ")));
    const ids = (c.identities || []).join(", ");
    if (ids) name.title = ids;
    for (const f of c.faults || []) name.append(el("span", "sub", pill("fault " + f, "warn")));
    for (const a of c.admission || []) {
      if (a.rejection_percent >= 0.5) name.append(el("span", "sub", pill((a.route ? a.route + " " : "") + (a.mode === "observe" ? "would hold back " : "holds back ") + a.rejection_percent.toFixed(0) + " %", a.mode === "observe" ? "warn" : "bad")));
    }
    const requests = num(count(c.requests));
    if (c.retries) requests.append(el("span", "sub", count(c.retries) + " retries"));
    return el("tr", "", name, rateCell(r), successCell(r, c.requests, c.failures), num(millis(c.p50_ms)), num(millis(c.p99_ms)), requests,
      share, breaker(c.breaker, now), num(c.budget_balance.toFixed(1)), meter(c.limits.connections), meter(c.limits.pending), active(c));
  });
  fill($("clusters"), ["name", "#req/s", "#success", "#p50", "#p99", "#requests", "available", "breaker", "#retry budget", "connections", "pending", "active"],
    rows, "No clusters.");
}

function strip(evidence) {
  const s = el("span", "strip");
  for (const o of evidence || []) {
    const b = el("span", "box " + (["success", "failure", "local_failure"].includes(o.result) ? o.result : "ignored"));
    b.title = o.result.replace("_", " ") + (o.status ? " " + o.status : "") + ", " + short(o.age_ms) + " ago";
    s.append(b);
  }
  return s;
}

function endpoints(v, now, rate) {
  const kinds = { healthy: "good", probation: "warn", ejected: "bad" };
  const healths = { passing: "", warning: "text-warn", critical: "text-bad" };
  const checks = { healthy: "good", unknown: "warn", unhealthy: "bad" };
  let last = null;
  let away = 0;
  const rows = v.endpoints.map((e) => {
    const r = rate("endpoints", e.cluster + " " + e.address + " " + e.id);
    if (!["healthy", "pinned"].includes(e.standing.state)) away++;
    const state = td("", pill(e.absent ? "absent" : e.state, kinds[e.state]));
    if (e.hand && e.hand.state !== "free") {
      const p = pill(e.hand.state.replace("_", " ") + " by hand", e.hand.state === "pinned" ? "good" : "warn");
      p.title = [e.hand.reason, e.hand.by].filter(Boolean).join(", by ");
      state.append(el("span", "sub", p, e.hand.until ? " until " + ahead(e.hand.until, now) : ""));
    }
    if (e.draining) {
      const p = pill("draining", "warn");
      p.title = e.draining;
      state.append(el("span", "sub", p));
    }
    if (e.state !== "healthy" && e.until) state.append(el("span", "sub", (e.state === "ejected" ? "until " : "") + ahead(e.until, now)));
    else if (e.since) state.append(el("span", "sub", "for " + short(now - Date.parse(e.since))));
    const address = td("", el("span", "mono", e.address));
    if (e.id) address.append(el("span", "sub", e.id));
    const place = [e.region, e.zone].filter(Boolean).join("/") + (e.priority ? " #" + e.priority : "");
    if (place) address.append(el("span", "sub", place));
    const ejections = num(count(e.ejections));
    if (e.would_have_ejected) ejections.append(el("span", "sub", "would have: " + count(e.would_have_ejected)));
    const health = td(healths[e.health] || "", e.health || "–");
    if (e.check) {
      const c = e.check;
      const p = pill(c.kind + " " + c.state, checks[c.state]);
      if (c.mode === "observe") p.title = "observed only";
      health.append(el("span", "sub", p, " next " + ahead(c.next, now)));
      const cause = c.cause ? [c.cause, c.cause_detail] : c.result && c.result !== "passed" ? [c.result, c.detail] : [];
      if (cause.length) health.append(el("span", "sub", cause.filter(Boolean).join(": ")));
    }
    const row = el("tr", "", td("group", e.cluster === last ? "" : e.cluster), address, health, state,
      td("wrap", e.cause || "–"), td("", strip(e.evidence)), rateCell(r), successCell(r, e.requests, e.failures), num(count(e.active) + (e.most_active ? " / " + count(e.most_active) : "")),
      num(millis(e.ewma_ms)), num(count(e.requests)), num(count(e.failures)), ejections);
    last = e.cluster;
    return row;
  });
  $("endpoint-count").textContent = v.endpoints.length ? v.endpoints.length + (away ? ", " + away + " not healthy" : ", all healthy") : "";
  fill($("endpoints"), ["cluster", "address", "health", "state", "cause", "last outcomes", "#req/s", "#success", "#active", "#ewma", "#requests", "#failures", "#ejections"],
    rows, "No endpoints: discovery has found none yet.");
}

function identity(v, now) {
  const i = v.identity;
  const list = $("identity");
  const items = [];
  const add = (k, ...d) => items.push(el("dt", "", k), el("dd", "", ...d));
  add("SPIFFE ID", i.id ? el("code", "", i.id) : el("span", "text-bad", "none"));
  add("source", i.source || "–");
  if (i.not_after) {
    const left = Date.parse(i.not_after) - now;
    const life = i.not_before ? Date.parse(i.not_after) - Date.parse(i.not_before) : 0;
    const kind = left <= 0 ? "text-bad" : life && left < life / 5 ? "text-warn" : "";
    add(left <= 0 ? "expired" : "expires", el("span", kind, ahead(i.not_after, now)), el("span", "text-soft", "  " + new Date(i.not_after).toLocaleString()));
  }
  add("updates", count(i.updates));
  for (const b of i.bundles || []) add("trusts", el("code", "", b.trust_domain), el("span", "text-soft", "  " + b.roots + (b.roots === 1 ? " root" : " roots") + (b.not_after ? ", expires " + ahead(b.not_after, now) : "")));
  if (i.last_error) add("last error", el("span", "text-bad", i.last_error));
  list.replaceChildren(...items);
}

function discovery(v) {
  const rows = v.discovery.map((d) => el("tr", "", td("group", d.service), td("", d.source), num(String(d.endpoints)),
    num(el("span", d.stale ? "text-warn" : "", short(d.age_seconds * 1000))),
    td("", d.stale ? pill("stale", "warn") : pill("fresh", "good")), td("wrap", d.last_error || "–")));
  fill($("discovery"), ["service", "source", "#endpoints", "#age", "state", "last error"], rows, "Nothing is looked up.");
}

function banners(v, now) {
  const list = [];
  const m = v.process.memory;
  if (m && m.level !== "easy") list.push(el("div", "banner warn", "Memory is short (level " + m.level + "): " + Math.round(m.used / 1048576) + " of " + Math.round(m.budget / 1048576) + " MiB are in use."));
  for (const f of v.faults || []) list.push(el("div", "banner warn", el("b", "", "Fault made on purpose: "), f.name + ", " + f.does + " for " + f.percent + " % of " + f.direction + " " + f.cluster + (f.of ? " (" + f.of + ")" : "") + ", ends " + ahead(f.until, now)));
  if (v.process.draining) list.push(el("div", "banner warn", "This proxy is draining: it finishes what it has and takes nothing new."));
  if (v.reload.last_error) {
    list.push(el("div", "banner bad", el("b", "", "The configuration could not be reloaded"), " " + ago(v.reload.last_error_at, now) + "; plan " + v.reload.version + " stays in use.",
      el("pre", "mono", v.reload.last_error)));
  }
  const failing = v.checks.filter((c) => !c.ok);
  if (!v.ready && failing.length) {
    list.push(el("div", "banner warn", el("b", "", "Not ready: "), failing.map((c) => c.name + (c.detail ? " (" + c.detail + ")" : "")).join("; ")));
  }
  $("banners").replaceChildren(...list);
}

function show(v) {
  const now = Date.parse(v.now); // the proxy's clock, which all times are of
  const rate = rates(v, now);
  document.title = (v.process.service || "outrigger") + (v.ready ? "" : " – not ready");
  $("service").textContent = v.process.service || "outrigger";
  $("version").textContent = v.process.version;
  $("ready").className = "pill " + (v.ready ? "good" : "bad");
  $("ready").textContent = v.ready ? "ready" : "not ready";
  $("ready").title = v.checks.map((c) => (c.ok ? "✓ " : "✗ ") + c.name + (c.detail ? ": " + c.detail : "")).join("\n");
  $("plan").textContent = v.reload.version + (v.reload.applied ? ", applied " + ago(v.reload.applied, now) : "");
  $("plan").title = v.reload.file;
  $("uptime").textContent = v.process.started ? short(now - Date.parse(v.process.started)) : "–";
  banners(v, now);
  clusters(v, now, rate);
  endpoints(v, now, rate);
  identity(v, now);
  discovery(v);
}

async function refresh() {
  try {
    const answer = await fetch("/?format=json", { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error("the proxy answered " + answer.status);
    show(await answer.json());
    document.querySelector("main").classList.remove("stale");
    $("refreshed").textContent = "live";
    $("refreshed").className = "fact";
  } catch (e) {
    document.querySelector("main").classList.add("stale");
    $("refreshed").textContent = "no answer from the proxy";
    $("refreshed").className = "fact text-bad";
  }
  setTimeout(refresh, document.hidden ? 5000 : 1000);
}

refresh();
