package retry

import "fmt"

// Layer says which of several proxies on the way of a request repeats it. The
// zero value is Outermost.
type Layer uint8

const (
	// Outermost leaves it to the caller's sidecar where that says that it repeats
	// requests itself. What no endpoint can have processed is tried again here
	// all the same.
	Outermost Layer = iota
	// Every repeats requests whatever the caller's sidecar does.
	Every
)

// String returns the name used in configuration.
func (l Layer) String() string {
	switch l {
	case Outermost:
		return "outermost"
	case Every:
		return "every"
	}
	return fmt.Sprintf("layer(%d)", uint8(l))
}

// MarshalText implements encoding.TextMarshaler.
func (l Layer) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. The empty string means
// outermost.
func (l *Layer) UnmarshalText(b []byte) error {
	switch string(b) {
	case "", "outermost":
		*l = Outermost
	case "every":
		*l = Every
	default:
		return fmt.Errorf("unknown layer %q; use outermost or every", b)
	}
	return nil
}
