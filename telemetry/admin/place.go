package admin

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Place says where the endpoint is: region/zone, and #N with a priority above 0.
func (e *EndpointView) Place() string {
	place := e.Zone
	if e.Region != "" {
		place = e.Region + "/" + e.Zone
	}
	if e.Priority > 0 {
		place = strings.TrimSpace(fmt.Sprintf("%s #%d", place, e.Priority))
	}
	return place
}

// metadataText is metadata in a line, in the order of the keys.
func metadataText(m map[string]string) string {
	words := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		words = append(words, k+"="+m[k])
	}
	return strings.Join(words, " ")
}

// subsetsText writes the subsets of all clusters, nothing where there are none.
func subsetsText(w io.Writer, v []ClusterView) {
	some := false
	for i := range v {
		some = some || len(v[i].Subsets) > 0
	}
	if !some {
		return
	}
	_, _ = fmt.Fprintln(w)
	table(w, "CLUSTER SUBSET MATCH ENDPOINTS PANIC FALLBACK FALLS-BACK FALLBACKS REFUSED", func(row func(...any)) {
		for i := range v {
			for _, s := range v[i].Subsets {
				row(v[i].Name, s.Name, metadataText(s.Match), fmt.Sprintf("%d/%d", s.Available, s.Endpoints), yes(s.Panic), s.Fallback, yes(s.FallsBack), s.Fallbacks, s.Refused)
			}
		}
	})
}

// sharesText writes how attempts are divided, nothing where they are not.
func sharesText(w io.Writer, v []ClusterView) {
	some := false
	for i := range v {
		some = some || len(v[i].Shares) > 0
	}
	if !some {
		return
	}
	_, _ = fmt.Fprintln(w)
	table(w, "CLUSTER PRIORITY PLACE AVAILABLE SHARE", func(row func(...any)) {
		for i := range v {
			for _, s := range v[i].Shares {
				row(v[i].Name, s.Priority, s.Place, s.Available, fmt.Sprintf("%.1f%%", s.Percent))
			}
		}
	})
}
