// Package sidecar turns what Consul's mesh says about a sidecar into its configuration.
//
// Translate makes of a mesh.Snapshot a config.Loaded: the same language that a
// file is written in, so that nothing is served that a file could not ask for,
// and everything that shows a configuration shows this one, with the Consul
// entry as the origin of each value.
//
// For each value the first that says something counts:
//
//  1. the file given with --config, where it names the value at that very place
//     (policies.api.timeout, but not policies."*".timeout);
//  2. the key "outrigger" in an upstream's opaque configuration, which is a policy
//     for that upstream; then in the proxy's (Proxy.Config, proxy-defaults), which
//     is a configuration like a file's;
//  3. what Consul's own fields say;
//  4. the file's policies."*", and the defaults.
//
// Who the proxy is and whom it lets in is not for the file to say: service.name,
// the identities of upstreams and authorization are Consul's.
//
// What cannot be done is a Finding, with the entry that asks for it, what holds in
// its place and what to do. Where it is about who may do something, the answer is
// no until it can be understood.
package sidecar
