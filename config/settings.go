package config

import (
	"strconv"
	"strings"
)

// Settings are the values in force by their paths.
type Settings map[string]Setting

// Settings returns every value in force, as Effective does, by its path.
func (l *Loaded) Settings() Settings {
	s := Settings{}
	for _, v := range l.Effective() {
		s[v.Path] = v
	}
	return s
}

// At returns the setting at path, or the first below it that is one of keys and
// not a default.
func (s Settings) At(path string, keys ...string) (Setting, bool) {
	if path == "" {
		return Setting{}, false
	}
	for _, key := range keys {
		if v, ok := s[path+"."+key]; ok && v.Origin != "default" {
			return v, true
		}
	}
	v, ok := s[path]
	return v, ok
}

// Deciding returns what decides about key, "retry.attempts", for an exchange: the
// first of bases, such as its route and its policy, that says it, or that says of
// its section that it is off; else the default of the last. Empty bases are passed
// over.
func (s Settings) Deciding(key string, bases ...string) (Setting, bool) {
	for i, base := range bases {
		if base == "" {
			continue
		}
		path := base + "." + key
		for len(path) > len(base) {
			if v, ok := s[path]; ok && (i == len(bases)-1 || v.Origin != "default") {
				return v, true
			}
			path = path[:strings.LastIndexByte(path, '.')]
		}
	}
	return Setting{}, false
}

// Rule returns the authorization rule in c that decided, by the name that a
// verdict gives it; where none did, the rules' mode.
func (s Settings) Rule(c *Config, name string) (Setting, bool) {
	if name == "" {
		return Setting{}, false
	}
	for i, r := range c.Authorization.Rules {
		title := "rules[" + strconv.Itoa(i) + "]"
		if r.Name == name || r.Name == "" && title == name {
			return s.At("authorization."+title, "name", "from")
		}
	}
	return s.At("authorization.mode")
}
