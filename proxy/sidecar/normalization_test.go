package sidecar

import (
	"encoding/json"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
)

// TestRequestNormalization: each word of the mesh entry, and those that are none,
// for which nothing passes that was to be looked at.
func TestRequestNormalization(t *testing.T) {
	type normal = config.Normalize
	const keep, allow = config.EscapedSlashesKeep, config.UnderscoresAllow
	for _, c := range []struct {
		mesh, base string
		want       normal
		found      string
	}{
		{`{}`, "", normal{Path: true, MergeSlashes: false, EscapedSlashes: keep, Underscores: allow}, ""},
		{`{"HTTP": {"Incoming": {}}}`, "", normal{Path: true, MergeSlashes: false, EscapedSlashes: keep, Underscores: allow}, ""},
		{`{"HTTP": {"Incoming": {"RequestNormalization": {}}}}`, "", normal{Path: true, MergeSlashes: false, EscapedSlashes: keep, Underscores: allow}, ""},
		{`{}`, "inbound: {normalize: {path: false, merge_slashes: true}}", normal{Path: false, MergeSlashes: true, EscapedSlashes: keep, Underscores: allow}, ""},
		{normalizationText(`"InsecureDisablePathNormalization": true, "MergeSlashes": true`), "", normal{Path: false, MergeSlashes: true, EscapedSlashes: keep, Underscores: allow}, ""},
		{normalizationText(`"PathWithEscapedSlashesAction": "IMPLEMENTATION_SPECIFIC_DEFAULT", "HeadersWithUnderscoresAction": "ALLOW"`), "", normal{Path: true, MergeSlashes: false, EscapedSlashes: keep, Underscores: allow}, ""},
		{normalizationText(`"PathWithEscapedSlashesAction": "KEEP_UNCHANGED"`), "", normal{Path: true, MergeSlashes: false, EscapedSlashes: keep, Underscores: allow}, ""},
		{normalizationText(`"PathWithEscapedSlashesAction": "REJECT_REQUEST", "HeadersWithUnderscoresAction": "REJECT_REQUEST"`), "", normal{Path: true, MergeSlashes: false, EscapedSlashes: config.EscapedSlashesReject, Underscores: config.UnderscoresReject}, ""},
		{normalizationText(`"PathWithEscapedSlashesAction": "UNESCAPE_AND_REDIRECT", "HeadersWithUnderscoresAction": "DROP_HEADER"`), "", normal{Path: true, MergeSlashes: false, EscapedSlashes: config.EscapedSlashesRedirect, Underscores: config.UnderscoresDrop}, ""},
		{normalizationText(`"PathWithEscapedSlashesAction": "UNESCAPE_AND_FORWARD"`), "", normal{Path: true, MergeSlashes: false, EscapedSlashes: config.EscapedSlashesForward, Underscores: allow}, ""},
		{normalizationText(`"PathWithEscapedSlashesAction": "WRAP"`), "", normal{Path: true, MergeSlashes: false, EscapedSlashes: config.EscapedSlashesReject, Underscores: allow}, normalizationAt + slashesField},
		{normalizationText(`"HeadersWithUnderscoresAction": "WRAP"`), "", normal{Path: true, MergeSlashes: false, EscapedSlashes: keep, Underscores: config.UnderscoresReject}, normalizationAt + fieldsField},
	} {
		base, err := config.ParseBase("base.yaml", []byte("discovery: {consul: {}}\nidentity: {consul: {}}\n"+c.base))
		if err != nil {
			t.Fatal(err)
		}
		s := large(0)
		s.Proxy.Proxy.Config = map[string]any{"protocol": "http"}
		if err := json.Unmarshal([]byte(c.mesh), &s.Mesh); err != nil {
			t.Fatal(err)
		}
		l, findings, err := Translate(base, s, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Config.Inbound.Normalize; got != c.want {
			t.Errorf("%s: %+v, want %+v", c.mesh, got, c.want)
		}
		found := ""
		for _, f := range findings {
			if f.Entry == meshEntry {
				found = f.Field
			}
		}
		if found != c.found {
			t.Errorf("%s: found %q, want %q", c.mesh, found, c.found)
		}
	}
}

func normalizationText(text string) string {
	return `{"HTTP": {"Incoming": {"RequestNormalization": {` + text + `}}}}`
}
