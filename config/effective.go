package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// Setting is one value in force.
type Setting struct {
	// Path is where the value stands: "policies.api.timeout".
	Path string `json:"path"`
	// Value is the value as it is written in YAML. A secret is hidden.
	Value string `json:"value"`
	// Origin says where the value came from: "default", "FILE:LINE:COL", and
	// what it came through.
	Origin string `json:"origin"`
}

// hidden stands for a secret wherever the configuration is shown.
const hidden = "(hidden)"

// Effective returns every value in force with its origin, in the order of the
// configuration's sections; the policy "*" stands before the others, which are
// sorted by name. A list of plain values is one value.
func (l *Loaded) Effective() []Setting {
	w := l.write(false)
	var all []Setting
	for _, line := range w.lines {
		if line.leaf {
			all = append(all, Setting{Path: line.path, Value: line.value, Origin: line.origin})
		}
	}
	return all
}

// WriteEffective writes the whole configuration in force as YAML, each value
// with its origin in a comment. Secrets are hidden; apart from these the
// output is a configuration that means the same.
func (l *Loaded) WriteEffective(out io.Writer) error {
	_, err := io.WriteString(out, l.write(false).String())
	return err
}

// WriteEffectiveJSON writes Effective as a JSON array.
func (l *Loaded) WriteEffectiveJSON(out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(l.Effective())
}

func (l *Loaded) write(secrets bool) *yamlWriter {
	w := &yamlWriter{origins: l.origins, secrets: secrets}
	w.section(reflect.ValueOf(l.Config).Elem(), "", 0)
	return w
}

// yamlLine is one line of output.
type yamlLine struct {
	text   string
	leaf   bool
	path   string
	value  string
	origin string
}

type yamlWriter struct {
	origins origins
	secrets bool // written in the clear
	lines   []yamlLine
	dash    string // the dash of a list item that stands before its first key
}

// commentColumn is the widest line that still moves the column of the comments.
const commentColumn = 56

// String returns the lines with their comments in one column.
func (w *yamlWriter) String() string {
	column := 0
	for _, l := range w.lines {
		if n := utf8.RuneCountInString(l.text); l.leaf && n <= commentColumn {
			column = max(column, n)
		}
	}
	var b strings.Builder
	for _, l := range w.lines {
		b.WriteString(l.text)
		if l.leaf {
			b.WriteString(strings.Repeat(" ", max(0, column-utf8.RuneCountInString(l.text))))
			b.WriteString("  # " + l.origin)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// line appends one line; the pending dash takes the place of its last two spaces.
func (w *yamlWriter) line(depth int, text string, leaf yamlLine) {
	indent := strings.Repeat("  ", depth)
	if w.dash != "" {
		indent, w.dash = w.dash, ""
	}
	leaf.text = indent + text
	w.lines = append(w.lines, leaf)
}

func (w *yamlWriter) leaf(depth int, name, path, value string) {
	w.line(depth, name+": "+value, yamlLine{leaf: true, path: path, value: value, origin: w.origins.of(path).String()})
}

func (w *yamlWriter) section(v reflect.Value, path string, depth int) {
	for _, k := range keysOf(v.Type()) {
		w.value(v.Field(k.index), k.name, joinKey(path, k.name), depth, k)
	}
}

func (w *yamlWriter) value(v reflect.Value, name, path string, depth int, k key) {
	switch typeWord(v.Type()) {
	case "section":
		if v.Kind() == reflect.Pointer {
			if _, inherits := v.Interface().(offSection); writtenOff(v) || v.IsNil() {
				if k.off && (!v.IsNil() || !inherits) {
					w.leaf(depth, name, path, "off")
				}
				return
			}
			v = v.Elem()
		}
		w.line(depth, name+":", yamlLine{})
		w.section(v, path, depth+1)
	case "list":
		if typeWord(v.Type().Elem()) != "section" || v.Len() == 0 {
			w.leaf(depth, name, path, scalarOrList(v))
			return
		}
		w.line(depth, name+":", yamlLine{})
		for i := range v.Len() {
			w.dash = strings.Repeat("  ", depth+1) + "- "
			w.section(reflect.Indirect(v.Index(i)), joinIndex(path, i), depth+2)
			w.dash = ""
		}
	case "map":
		w.mapping(v, name, path, depth)
	default:
		if v = reflect.Indirect(v); !v.IsValid() {
			return // not given
		}
		value := scalarOrList(v)
		if !w.secrets && isSecret(name) && v.Kind() == reflect.String && v.Len() > 0 {
			value = quoteYAML(hidden)
		}
		w.leaf(depth, name, path, value)
	}
}

func (w *yamlWriter) mapping(v reflect.Value, name, path string, depth int) {
	if v.Len() == 0 {
		w.leaf(depth, name, path, "{}")
		return
	}
	w.line(depth, name+":", yamlLine{})
	for _, word := range sortedKeys(v) {
		w.value(v.MapIndex(reflect.ValueOf(word)), quoteYAML(word), joinKey(path, word), depth+1, key{})
	}
}

// sortedKeys returns the keys of a map with "*" first.
func sortedKeys(v reflect.Value) []string {
	keys := make([]string, 0, v.Len())
	for _, k := range v.MapKeys() {
		keys = append(keys, k.String())
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(boolInt(b == AnyService)-boolInt(a == AnyService), cmp.Compare(a, b))
	})
	return keys
}

// isSecret reports whether a key holds something that is not shown.
func isSecret(name string) bool {
	switch strings.ToLower(name) {
	case "authorization", "proxy-authorization", "cookie", "set-cookie": // that a route sets
		return true
	}
	return name == "token" || strings.HasSuffix(name, "_token") || strings.HasSuffix(name, "password")
}

// quoteYAML writes s as a YAML string, plain where that cannot be mistaken.
func quoteYAML(s string) string {
	if plainScalar(s) {
		return s
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return fmt.Sprintf("%q", s)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// plainScalar reports whether s needs no quotes: it begins with a letter or a
// slash, holds nothing that YAML reads otherwise, and is no word with a
// meaning of its own.
func plainScalar(s string) bool {
	if s == "" || len(s) > 200 {
		return false
	}
	for i, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', r == '/', r == '_':
		case i > 0 && ('0' <= r && r <= '9' || r == '.' || r == '-' || r == '+'):
		case i > 0 && r == ':' && i < len(s)-1:
		default:
			return false
		}
	}
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "y", "n", "nan", "inf":
		return false
	}
	return true
}
