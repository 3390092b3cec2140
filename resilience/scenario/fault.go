package scenario

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// FaultKind is what happens to an endpoint.
type FaultKind uint8

// The faults.
const (
	NoFault     FaultKind = iota
	Slow                  // "slow x20": it works so many times longer on a request
	Delay                 // "delay 2s": its answers come so much later
	Stall                 // "stall": it begins no work; requests wait
	Down                  // "down": it refuses connections, and those there are break
	Unreachable           // "unreachable": connections to it are not made, answers do not come
	Error                 // "error 30%": so many requests are answered with 503 at once
	Gray                  // "gray 30%": so many requests are answered with 500 after the usual time
	Lossy                 // "lossy 10%": of so many requests no answer comes
)

// Fault is one with its figure, as it is written.
type Fault struct {
	Kind   FaultKind
	Factor float64       // of Slow
	Delay  time.Duration // of Delay
	Share  float64       // of Error, Gray and Lossy, 0 to 1
}

const faultRule = "write one of: slow x20, delay 2s, stall, down, unreachable, error 30%, gray 30%, lossy 10%"

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Fault) UnmarshalText(text []byte) error {
	words := strings.Fields(string(text))
	if len(words) == 0 {
		return errors.New("is empty; " + faultRule)
	}
	n, want := Fault{}, 2
	var err error
	figure := ""
	if len(words) > 1 {
		figure = words[1]
	}
	switch words[0] {
	case "slow":
		n.Kind = Slow
		digits, ok := strings.CutPrefix(figure, "x")
		if n.Factor, err = strconv.ParseFloat(digits, 64); err != nil || !ok || !(n.Factor >= 0.01 && n.Factor <= 1e6) {
			return fmt.Errorf("slow is followed by a factor such as x20, from x0.01 to x1000000; %s", faultRule)
		}
	case "delay":
		n.Kind = Delay
		n.Delay, err = duration(figure)
	case "stall":
		n.Kind, want = Stall, 1
	case "down":
		n.Kind, want = Down, 1
	case "unreachable":
		n.Kind, want = Unreachable, 1
	case "error":
		n.Kind = Error
		n.Share, err = percent(figure)
	case "gray":
		n.Kind = Gray
		n.Share, err = percent(figure)
	case "lossy":
		n.Kind = Lossy
		n.Share, err = percent(figure)
	default:
		return fmt.Errorf("%q is no fault; %s", words[0], faultRule)
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, faultRule)
	}
	if len(words) != want {
		return fmt.Errorf("%s has %d words instead of %d; %s", words[0], len(words), want, faultRule)
	}
	*f = n
	return nil
}

// String returns f as it is written.
func (f Fault) String() string {
	switch f.Kind {
	case Slow:
		return "slow x" + strconv.FormatFloat(f.Factor, 'f', -1, 64)
	case Delay:
		return fmt.Sprintf("delay %v", f.Delay)
	case Stall:
		return "stall"
	case Down:
		return "down"
	case Unreachable:
		return "unreachable"
	case Error:
		return "error " + percentOf(f.Share) + "%"
	case Gray:
		return "gray " + percentOf(f.Share) + "%"
	case Lossy:
		return "lossy " + percentOf(f.Share) + "%"
	}
	return "none"
}

// MarshalText implements encoding.TextMarshaler.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.String()), nil }
