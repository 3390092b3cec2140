package config

import (
	"strconv"
	"strings"
)

// joinKey appends a key to a path. A key with characters that would make the
// path ambiguous is quoted.
func joinKey(path, key string) string {
	if !plainKey(key) {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// PolicyPath is where the policy for calls to service stands.
func PolicyPath(service string) string { return joinKey("policies", service) }

// joinIndex appends the position in a list to a path.
func joinIndex(path string, i int) string {
	return path + "[" + strconv.Itoa(i) + "]"
}

// joinField appends a field as a machine's Validate names it, which may have
// several steps ("rules[0].from") or none.
func joinField(path, field string) string {
	switch {
	case path == "":
		return field
	case field == "" || field[0] == '[':
		return path + field
	}
	return path + "." + field
}

func plainKey(key string) bool {
	if key == "" {
		return false
	}
	for _, r := range key {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '-', r == '*':
		default:
			return false
		}
	}
	return true
}

// parentPath returns the path without its last step; "" has none.
func parentPath(path string) (string, bool) {
	if path == "" {
		return "", false
	}
	if path[len(path)-1] == '"' {
		// A quoted key: walk from the front, for it may hold any character.
		last, quoted := 0, false
		for i := 0; i < len(path); i++ {
			switch c := path[i]; {
			case quoted && c == '\\':
				i++
			case c == '"':
				quoted = !quoted
			case !quoted && (c == '.' || c == '['):
				last = i
			}
		}
		return path[:last], true
	}
	return path[:max(strings.LastIndexAny(path, ".["), 0)], true
}

// within reports whether path is at or below root.
func within(path, root string) bool {
	rest, ok := strings.CutPrefix(path, root)
	return ok && (rest == "" || root == "" || rest[0] == '.' || rest[0] == '[')
}
