// Package guard holds what every resilience guard has in common: whether it acts or only says what it would have done.
package guard

import "fmt"

// Mode says whether a guard acts on its decisions. The zero value is Enforce,
// so that a guard which is configured at all protects by default.
type Mode uint8

const (
	// Enforce acts on every decision.
	Enforce Mode = iota
	// Observe decides and counts in the same way, but lets traffic pass as if
	// the guard were not there.
	Observe
)

// String returns the name used in configuration, metrics and the admin API.
func (m Mode) String() string {
	if m == Observe {
		return "observe"
	}
	return "enforce"
}

// MarshalText implements encoding.TextMarshaler.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts "enforce",
// "observe" and the empty string, which means enforce.
func (m *Mode) UnmarshalText(b []byte) error {
	switch string(b) {
	case "enforce", "":
		*m = Enforce
	case "observe":
		*m = Observe
	default:
		return fmt.Errorf("unknown mode %q; use enforce or observe", b)
	}
	return nil
}
