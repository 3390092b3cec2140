package sidecar

import "github.com/outrigger-mesh/outrigger/mtls/authz"

// normalization heeds what the mesh entry says of paths before they are compared.
// No path is rewritten here: what servers could read in different ways is refused
// where an intention looks at paths, which is never less strict.
func (t *translation) normalization(cfg *authz.Config) {
	h := t.s.Mesh.HTTP
	if h == nil || h.Incoming == nil || h.Incoming.RequestNormalization == nil {
		return
	}
	const entry, at = "mesh", "HTTP.Incoming.RequestNormalization."
	n := h.Incoming.RequestNormalization
	if n.InsecureDisablePathNormalization {
		t.find(Differs, entry, at+"InsecureDisablePathNormalization", "is not followed: intentions compare paths in normal form, and refuse those that servers read in different ways", "")
	}
	if n.MergeSlashes {
		t.find(Differs, entry, at+"MergeSlashes", "holds for intentions; the application gets the path as it came", "")
	}
	switch n.PathWithEscapedSlashesAction {
	case "", "IMPLEMENTATION_SPECIFIC_DEFAULT":
	case "KEEP_UNCHANGED":
		cfg.EncodedSlashes = authz.CompareSlashes
	case "REJECT_REQUEST":
		t.find(Differs, entry, at+"PathWithEscapedSlashesAction", "is REJECT_REQUEST, which is done where an intention looks at paths only, with the status 403", "")
	default:
		t.find(Differs, entry, at+"PathWithEscapedSlashesAction", "is "+n.PathWithEscapedSlashesAction+"; paths with an encoded slash are not rewritten, but refused where an intention looks at paths", "write KEEP_UNCHANGED or REJECT_REQUEST")
	}
	switch n.HeadersWithUnderscoresAction {
	case "", "ALLOW":
	default:
		t.find(Refused, entry, at+"HeadersWithUnderscoresAction", "is "+n.HeadersWithUnderscoresAction+", which is not done: the application gets such fields", "have the application ignore them")
	}
}
