package sidecar

import (
	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
)

const (
	normalizationAt = "HTTP.Incoming.RequestNormalization."
	slashesField    = "PathWithEscapedSlashesAction"
	fieldsField     = "HeadersWithUnderscoresAction"
)

// normalize brings the requests of others into one form, as Consul has it of
// Envoy where the mesh entry says nothing.
func (t *translation) normalize() {
	c, from := &t.Config.Inbound.Normalize, "Consul "+meshEntry+" "+normalizationAt
	const path = "inbound.normalize."
	h := t.s.Mesh.HTTP
	if h == nil || h.Incoming == nil || h.Incoming.RequestNormalization == nil {
		put(t, &c.Path, true, path+"path", "Consul's default")
		return
	}
	n := h.Incoming.RequestNormalization
	if n.InsecureDisablePathNormalization {
		put(t, &c.Path, false, path+"path", from+"InsecureDisablePathNormalization")
	} else {
		put(t, &c.Path, true, path+"path", "Consul's default")
	}
	if n.MergeSlashes {
		put(t, &c.MergeSlashes, true, path+"merge_slashes", from+"MergeSlashes")
	}
	slashes, known := map[string]config.EscapedSlashes{
		"": "", "IMPLEMENTATION_SPECIFIC_DEFAULT": "",
		"KEEP_UNCHANGED": config.EscapedSlashesKeep, "REJECT_REQUEST": config.EscapedSlashesReject,
		"UNESCAPE_AND_REDIRECT": config.EscapedSlashesRedirect, "UNESCAPE_AND_FORWARD": config.EscapedSlashesForward,
	}[n.PathWithEscapedSlashesAction]
	if !known {
		t.find(Refused, meshEntry, normalizationAt+slashesField, "is "+n.PathWithEscapedSlashesAction+", which is not known; such requests are rejected", "write KEEP_UNCHANGED, REJECT_REQUEST, UNESCAPE_AND_REDIRECT or UNESCAPE_AND_FORWARD")
		slashes = config.EscapedSlashesReject
	}
	if slashes != "" {
		put(t, &c.EscapedSlashes, slashes, path+"escaped_slashes", from+slashesField)
	}
	fields, known := map[string]config.Underscores{
		"": "", "ALLOW": config.UnderscoresAllow, "REJECT_REQUEST": config.UnderscoresReject, "DROP_HEADER": config.UnderscoresDrop,
	}[n.HeadersWithUnderscoresAction]
	if !known {
		t.find(Refused, meshEntry, normalizationAt+fieldsField, "is "+n.HeadersWithUnderscoresAction+", which is not known; such requests are rejected", "write ALLOW, REJECT_REQUEST or DROP_HEADER")
		fields = config.UnderscoresReject
	}
	if fields != "" {
		put(t, &c.Underscores, fields, path+"underscores", from+fieldsField)
	}
}

// compareSlashes has rules compare paths with an encoded slash where the mesh
// entry says that these are to be kept. Where it says nothing they are refused
// where an intention looks at paths, which is never less strict.
func (t *translation) compareSlashes(cfg *authz.Config) {
	h := t.s.Mesh.HTTP
	if h != nil && h.Incoming != nil && h.Incoming.RequestNormalization != nil && h.Incoming.RequestNormalization.PathWithEscapedSlashesAction == "KEEP_UNCHANGED" {
		cfg.EncodedSlashes = authz.CompareSlashes
	}
}
