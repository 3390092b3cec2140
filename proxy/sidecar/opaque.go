package sidecar

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ours is the key in opaque configurations that holds our own language.
const ours = "outrigger"

// opaque reads a configuration that Consul passes on without knowing it. Keys
// are in snake_case where people wrote them and in CamelCase where they come
// from central configuration; null is as if it were not there. Numbers may be
// written as text, as Consul takes them.
type opaque struct {
	t     *translation
	entry string
	at    string            // the path of the map in its entry
	names map[string]string // spellings, by folded name
	m     map[string]any    // by folded name
	read  map[string]bool
}

func (t *translation) opaque(entry, at string, m map[string]any) *opaque {
	o := &opaque{t: t, entry: entry, at: at, names: map[string]string{}, m: map[string]any{}, read: map[string]bool{}}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] == nil {
			continue
		}
		folded := fold(k)
		if _, twice := o.m[folded]; twice && k != strings.ToLower(k) {
			continue // what a person wrote wins over what was merged in
		}
		o.m[folded], o.names[folded] = m[k], k
	}
	return o
}

func fold(key string) string { return strings.ToLower(strings.ReplaceAll(key, "_", "")) }

// field is how a key is named in findings and origins.
func (o *opaque) field(key string) string {
	if name, ok := o.names[fold(key)]; ok {
		key = name
	}
	return o.at + "." + key
}

// from says where the value of key comes from.
func (o *opaque) from(key string) string { return "Consul " + o.entry + " " + o.field(key) }

// fromOr is from where the key is given, else what holds without it.
func (o *opaque) fromOr(key, without string) string {
	if _, ok := o.m[fold(key)]; ok {
		return o.from(key)
	}
	return without
}

// byEnvoy is the origin of values that hold because Envoy has them.
const byEnvoy = "Envoy's default"

func (o *opaque) get(key string) (any, bool) {
	key = fold(key)
	o.read[key] = true
	v, ok := o.m[key]
	return v, ok
}

func (o *opaque) wrong(key, want string, v any) {
	text, _ := json.Marshal(v)
	o.t.find(Refused, o.entry, o.field(key), fmt.Sprintf("is %s, which is not %s; it is taken as not given", text, want), "write "+want)
}

// text returns a value that is text.
func (o *opaque) text(key string) (string, bool) {
	v, ok := o.get(key)
	if !ok {
		return "", false
	}
	s, ok := v.(string)
	if !ok {
		o.wrong(key, "text", v)
	}
	return s, ok && s != ""
}

// number returns a value that is a whole number of 0 or more.
func (o *opaque) number(key string) (int64, bool) {
	v, ok := o.get(key)
	if !ok {
		return 0, false
	}
	n, ok := whole(v)
	if !ok || n < 0 {
		o.wrong(key, "a whole number of 0 or more", v)
		return 0, false
	}
	return n, true
}

func whole(v any) (int64, bool) {
	switch v := v.(type) {
	case float64:
		return int64(v), v == math.Trunc(v) && math.Abs(v) < 1<<53
	case int:
		return int64(v), true
	case int64:
		return v, true
	case json.Number:
		n, err := v.Int64()
		return n, err == nil
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	}
	return 0, false
}

// millis returns a number of milliseconds.
func (o *opaque) millis(key string) (time.Duration, bool) {
	n, ok := o.number(key)
	if n > math.MaxInt64/int64(time.Millisecond) {
		n = math.MaxInt64 / int64(time.Millisecond)
	}
	return time.Duration(n) * time.Millisecond, ok
}

// duration returns a time that is written as text with a unit or as a number of
// nanoseconds.
func (o *opaque) duration(key string) (time.Duration, bool) {
	v, ok := o.get(key)
	if !ok {
		return 0, false
	}
	if n, ok := whole(v); ok && n >= 0 {
		return time.Duration(n), true
	}
	if s, ok := v.(string); ok {
		if d, err := time.ParseDuration(s); err == nil && d >= 0 {
			return d, true
		}
	}
	o.wrong(key, `a duration such as "10s"`, v)
	return 0, false
}

// only returns the map in a list of one: as Nomad registers a block of a job, and
// as Consul takes it. What is below it stays as it is, since a list of our own
// language may have one element.
func only(v any) any {
	if list, ok := v.([]any); ok && len(list) == 1 {
		if m, ok := list[0].(map[string]any); ok {
			return m
		}
	}
	return v
}

// section returns what is read of a map below key; nil without one.
func (o *opaque) section(key string) *opaque {
	v, ok := o.get(key)
	if !ok {
		return nil
	}
	m, ok := only(v).(map[string]any)
	if !ok {
		o.wrong(key, "a map of keys", v)
		return nil
	}
	return o.t.opaque(o.entry, o.field(key), m)
}

// layer returns the value of our own key as JSON; nil without one.
func (o *opaque) layer() []byte {
	v, ok := o.get(ours)
	if !ok {
		return nil
	}
	data, err := json.Marshal(only(v))
	if err != nil {
		o.wrong(ours, "a configuration of this proxy", v)
		return nil
	}
	return data
}

// rest says of all keys that nobody has read what that means.
func (o *opaque) rest() {
	for _, k := range slices.Sorted(maps.Keys(o.m)) {
		if o.read[k] {
			continue
		}
		field := o.field(k)
		name := o.names[k]
		switch {
		case isHatch(name):
			o.t.find(Refused, o.entry, field, "is configuration of Envoy, which this proxy cannot run; nothing of it is in force",
				"say the same in this proxy's own language under the key "+ours+", and remove it")
		case strings.HasPrefix(name, "envoy_"):
			o.t.find(Ignored, o.entry, field, "is for Envoy's bootstrap; metrics and state are at this proxy's admin API", "")
		default:
			o.t.find(Refused, o.entry, field, "is not known, so nothing comes of it", "see docs/consul.md for the keys, or remove it")
		}
	}
}

// isHatch reports whether a key replaces what Consul would generate for Envoy.
func isHatch(key string) bool {
	return strings.HasPrefix(key, "envoy_") && strings.HasSuffix(key, "_json")
}
