package config

import (
	"fmt"
	"strings"
	"time"
)

// formatDuration writes d as a configuration would: "5m", not "5m0s".
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// parseDuration reads a duration; problem is "" when it is one.
func parseDuration(n *node) (d time.Duration, problem string) {
	switch n.kind {
	case kindInt, kindFloat:
		if n.text == "0" {
			return 0, ""
		}
		if _, err := time.ParseDuration(n.text + "s"); err == nil {
			return 0, fmt.Sprintf("%s has no unit; write %ss", n.text, n.text)
		}
		return 0, fmt.Sprintf("%s is not a duration; write one like 250ms, 2s or 1h30m", n.text)
	case kindString:
		d, err := time.ParseDuration(n.text)
		if err != nil {
			if fix := fixDuration(n.text); fix != "" {
				return 0, fmt.Sprintf("%q is not a duration; write %s", n.text, fix)
			}
			return 0, fmt.Sprintf("%q is not a duration; write one like 250ms, 2s or 1h30m (units: ns, us, ms, s, m, h)", n.text)
		}
		return d, ""
	}
	return 0, fmt.Sprintf("must be a duration such as 2s, not %s", describe(n))
}

// fixDuration returns what a mistaken duration most likely means, "" when that is unclear.
func fixDuration(text string) string {
	s := strings.ToLower(strings.Join(strings.Fields(text), ""))
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz")
	unit := s[len(digits):]
	switch unit {
	case "msec", "msecs", "milli", "millis", "millisecond", "milliseconds":
		unit = "ms"
	case "sec", "secs", "second", "seconds", "":
		unit = "s"
	case "min", "mins", "minute", "minutes":
		unit = "m"
	case "hr", "hrs", "hour", "hours":
		unit = "h"
	case "d", "day", "days":
		d, err := time.ParseDuration(digits + "h")
		if err != nil || d > 10_000*time.Hour {
			return ""
		}
		return formatDuration(24 * d)
	}
	if d, err := time.ParseDuration(digits + unit); err != nil || d == 0 {
		return ""
	}
	return digits + unit
}
