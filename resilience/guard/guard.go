// Package guard holds what every resilience guard has in common: whether, and for how many, it acts or only says what it would have done.
package guard

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Mode says for which exchanges a guard acts on its decisions. Its number is how
// many of 10,000 it only observes. The zero value is Enforce, so that a guard
// which is configured at all protects by default.
type Mode uint16

const (
	// Enforce acts on every decision.
	Enforce Mode = 0
	// Observe decides and counts in the same way, but lets traffic pass as if
	// the guard were not there.
	Observe Mode = parts
)

// parts is how finely exchanges are told apart: to a hundredth of a percent.
const parts = 10000

// Percent is the mode that acts for so many of 100 exchanges, as near as a mode
// can say it, and observes the others.
func Percent(p float64) Mode {
	if !(p > 0) { // nor NaN
		return Observe
	}
	return Observe - Mode(math.Round(min(p, 100)*parts/100))
}

// Draw is one exchange's number among 10,000. All guards that an exchange meets
// go by the same, so that what one of them lets pass because it only observes,
// another with the same or a smaller percentage does too. The zero Draw is that
// of an exchange of which no guard had a percentage to know: for it such a guard
// only observes.
type Draw uint16

// Strictest is the draw for which every guard acts that acts at all.
const Strictest Draw = parts - 1

// DrawOf returns the draw that a uniformly random word stands for.
func DrawOf(random uint64) Draw {
	d, _ := bits.Mul64(random, parts)
	return Draw(d)
}

// Acts reports whether the guard acts on what it decides about the exchange of d.
func (m Mode) Acts(d Draw) bool { return uint16(d) >= uint16(m) }

// Partial reports whether the guard acts for some and observes others.
func (m Mode) Partial() bool { return m > Enforce && m < Observe }

// Known reports whether m is a mode.
func (m Mode) Known() bool { return m <= Observe }

// Share is for how many of 100 exchanges the guard acts.
func (m Mode) Share() float64 { return float64(parts-min(m, parts)) * 100 / parts }

// String returns what is written in configuration, metrics and the admin API.
func (m Mode) String() string {
	switch m {
	case Enforce:
		return "enforce"
	case Observe:
		return "observe"
	}
	return strconv.FormatFloat(m.Share(), 'f', -1, 64) + "%"
}

// Unknown is said of a value that is not a mode.
const Unknown = "is unknown; use enforce, observe or a percentage such as 25%"

// NotPartial is said of a percentage for a guard that acts for all or none.
const NotPartial = "must be enforce or observe: what it does to an endpoint holds for every exchange, so there is no percentage of them"

// Words are what a mode is written as, apart from percentages.
func (Mode) Words() []string { return []string{"enforce", "observe"} }

// Pattern is the regular expression of a percentage.
func (Mode) Pattern() string { return `^([1-9][0-9]?(\.[0-9]{1,2})?|0\.(0[1-9]|[1-9][0-9]?))%$` }

// Why a text is not a mode. Whoever asks says which.
var (
	errUnknown = errors.New("unknown mode; use enforce, observe or a percentage such as 25%")
	errNobody  = errors.New("this acts for nobody; use observe")
	errAll     = errors.New("a percentage is below 100%; use enforce to act for all")
	errFine    = errors.New("a percentage has at most two decimals")
)

// MarshalText implements encoding.TextMarshaler.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts "enforce",
// "observe", a percentage between 0 and 100 with at most two decimals, such as
// "25%" or "0.5%", and the empty string, which means enforce.
func (m *Mode) UnmarshalText(b []byte) error {
	switch string(b) {
	case "enforce", "":
		*m = Enforce
		return nil
	case "observe":
		*m = Observe
		return nil
	}
	text, ok := strings.CutSuffix(string(b), "%")
	p, err := strconv.ParseFloat(text, 64)
	digits := strings.Trim(text, "0123456789.") == ""
	_, decimals, _ := strings.Cut(text, ".")
	switch {
	case err != nil || !digits:
		return errUnknown
	case !ok:
		return fmt.Errorf("a percentage has its sign: %s%%", text)
	case p == 0:
		return errNobody
	case p >= 100:
		return errAll
	case len(decimals) > 2:
		return errFine
	}
	*m = Percent(p)
	return nil
}
