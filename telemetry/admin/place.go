package admin

import (
	"fmt"
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
