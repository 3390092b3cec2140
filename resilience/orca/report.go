package orca

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
)

// Names of the fields that carry a report, in lower case.
const (
	// Field has a report in words: "TEXT cpu_utilization=0.3, ...", "JSON {...}",
	// or "BIN " and the value of FieldBin.
	Field = "endpoint-load-metrics"
	// FieldBin has an xds.data.orca.v3.OrcaLoadReport in base64.
	FieldBin = "endpoint-load-metrics-bin"
)

// Report is what is taken from a report; what it does not say is 0.
type Report struct {
	CPU         float64 // cpu_utilization: 1 is all that there is; may be above
	Application float64 // application_utilization, in a measure of the application's own
	RPS         float64 // rps_fractional, else rps: requests per second
	EPS         float64 // eps: of those, errors
}

// maxReport bounds a field's value. A longer one is malformed.
const maxReport = 4096

// Parse reads the value of Field. ok is false for what is malformed: not in one
// of the forms, longer than 4096 bytes, or with a value that is negative or no
// number. Names that are not needed are skipped.
func Parse(value []byte) (r Report, ok bool) {
	if len(value) > maxReport {
		return Report{}, false
	}
	i := bytes.IndexByte(value, ' ')
	if i < 0 {
		return Report{}, false
	}
	rest := value[i+1:]
	switch string(value[:i]) {
	case "TEXT":
		ok = r.text(rest)
	case "JSON":
		ok = r.json(rest)
	case "BIN":
		return ParseBin(bytes.TrimSpace(rest))
	}
	if !ok || !r.sane() {
		return Report{}, false
	}
	return r, true
}

// ParseBin reads the value of FieldBin, in base64 with or without padding.
func ParseBin(value []byte) (r Report, ok bool) {
	if len(value) > maxReport {
		return Report{}, false
	}
	var mem [maxReport]byte
	n, err := base64.RawStdEncoding.Decode(mem[:], bytes.TrimRight(value, "="))
	if err != nil || !r.proto(mem[:n]) || !r.sane() {
		return Report{}, false
	}
	return r, true
}

// sane reports whether all values are numbers that there can be.
func (r *Report) sane() bool {
	for _, v := range [...]float64{r.CPU, r.Application, r.RPS, r.EPS} {
		if !(v >= 0 && v <= math.MaxFloat64) {
			return false
		}
	}
	return true
}

// Weight is what a report comes to (gRFC A58): requests per second divided by
// utilization, to which the share of errors is added as many times as penalty
// says. It is 0 where the report does not say enough: it needs both.
func (r *Report) Weight(penalty float64) float64 {
	u := r.Application
	if u <= 0 {
		u = r.CPU
	}
	if u <= 0 || r.RPS <= 0 {
		return 0
	}
	if penalty > 0 && r.EPS > 0 {
		u += r.EPS / r.RPS * penalty
	}
	if w := r.RPS / u; w >= 1/maxWeight && w <= maxWeight {
		return w
	}
	return 0
}

// maxWeight and its inverse bound weights, so that nothing made of them overflows.
const maxWeight = 1e100

// text reads name=value pairs behind TEXT, divided by commas. A colon stands for
// the sign, too.
func (r *Report) text(b []byte) bool {
	for {
		pair, end := b, bytes.IndexByte(b, ',')
		if end >= 0 {
			pair = b[:end]
		}
		i := bytes.IndexAny(pair, "=:")
		if i <= 0 || !r.set(bytes.TrimSpace(pair[:i]), bytes.TrimSpace(pair[i+1:])) {
			return false
		}
		if end < 0 {
			return true
		}
		b = b[end+1:]
	}
}

// place is where the value of a name goes, nil for one that is not needed. rps
// stands for rps_fractional, behind which it is kept.
func (r *Report) place(name []byte) *float64 {
	switch string(name) {
	case "cpu_utilization", "cpuUtilization":
		return &r.CPU
	case "application_utilization", "applicationUtilization":
		return &r.Application
	case "rps_fractional", "rpsFractional":
		return &r.RPS
	case "eps":
		return &r.EPS
	}
	return nil
}

// set takes the value of a name in, and reports whether it may be what it is.
func (r *Report) set(name, value []byte) bool {
	at := r.place(name)
	older := at == nil && string(name) == "rps"
	if at == nil && !older {
		return true
	}
	v, ok := number(value)
	switch {
	case !ok:
		return false
	case older && r.RPS == 0:
		r.RPS = v
	case !older && (v > 0 || at != &r.RPS):
		*at = v
	}
	return true
}

// maxNumber bounds the digits of a number.
const maxNumber = 32

// number reads a decimal number that is not negative. It is strict, so that
// strconv has no error to make.
func number(b []byte) (float64, bool) {
	if len(b) == 0 || len(b) > maxNumber || numeral(b) != len(b) || b[0] == '-' {
		return 0, false
	}
	if i := bytes.IndexAny(b, "eE"); i >= 0 && len(bytes.TrimLeft(b[i+1:], "+-")) > 2 {
		return 0, false // out of all reason, and maybe of range
	}
	v, err := strconv.ParseFloat(string(b), 64)
	return v, err == nil
}

// numeral returns the length of the number at the beginning of b, as JSON has
// them, 0 without one.
func numeral(b []byte) int {
	i := 0
	if i < len(b) && b[i] == '-' {
		i++
	}
	from := i
	if i = digits(b, i); i == from || b[from] == '0' && i > from+1 {
		return 0
	}
	if i < len(b) && b[i] == '.' {
		from = i + 1
		if i = digits(b, from); i == from {
			return 0
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		from = i
		if i = digits(b, from); i == from {
			return 0
		}
	}
	return i
}

func digits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}
