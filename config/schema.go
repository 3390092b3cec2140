package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// schemaNode is one level of a JSON Schema, in the order it is written.
type schemaNode struct {
	Schema      string         `json:"$schema,omitempty"`
	ID          string         `json:"$id,omitempty"`
	Title       string         `json:"title,omitempty"`
	Description string         `json:"description,omitempty"`
	Type        any            `json:"type,omitempty"`
	Enum        []string       `json:"enum,omitempty"`
	Const       *json.Number   `json:"const,omitempty"`
	Pattern     string         `json:"pattern,omitempty"`
	Minimum     *int           `json:"minimum,omitempty"`
	Maximum     *int           `json:"maximum,omitempty"`
	Default     any            `json:"default,omitempty"`
	Items       *schemaNode    `json:"items,omitempty"`
	Properties  *orderedSchema `json:"properties,omitempty"`
	Required    []string       `json:"required,omitempty"`
	Additional  any            `json:"additionalProperties,omitempty"`
	AnyOf       []*schemaNode  `json:"anyOf,omitempty"`
}

// orderedSchema keeps properties in the order of the configuration.
type orderedSchema struct {
	names []string
	nodes []*schemaNode
}

// MarshalJSON implements json.Marshaler.
func (o *orderedSchema) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range o.names {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(o.nodes[i])
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// durationPattern is what time.ParseDuration reads, without a sign.
const durationPattern = `^(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`

// Schema returns the JSON Schema (draft 2020-12) of a configuration file, for
// editors. It says all that can be said of one value by itself; what several
// values together must fulfil is checked by Parse alone.
func Schema() ([]byte, error) {
	c := Default()
	root := schemaSection(reflect.ValueOf(c))
	root.Schema = "https://json-schema.org/draft/2020-12/schema"
	root.Title = "Outrigger proxy configuration"
	root.Type = "object"
	root.Required = []string{"service"}
	for i, name := range root.Properties.names {
		if name == "service" {
			root.Properties.nodes[i].Type = "object"
			root.Properties.nodes[i].Required = []string{"name"}
		}
	}
	b, err := json.Marshal(root)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// schemaSection describes a struct with the defaults it holds. A section may
// be written without a key, which YAML reads as null.
func schemaSection(v reflect.Value) *schemaNode {
	n := &schemaNode{Type: []string{"object", "null"}, Additional: false, Properties: &orderedSchema{}}
	for _, k := range keysOf(v.Type()) {
		child := schemaValue(v.Field(k.index), k)
		child.Description = fieldDoc(k.id)
		n.Properties.names = append(n.Properties.names, k.name)
		n.Properties.nodes = append(n.Properties.nodes, child)
	}
	return n
}

func schemaValue(v reflect.Value, k key) *schemaNode {
	t := v.Type()
	switch typeWord(t) {
	case "section":
		if t.Kind() == reflect.Pointer {
			if v.IsNil() {
				v = newSection(t.Elem())
			}
			v = v.Elem()
		}
		n := schemaSection(v)
		if k.off {
			return &schemaNode{AnyOf: []*schemaNode{n, {Enum: []string{"off"}}}}
		}
		return n
	case "list":
		item := schemaValue(reflect.Indirect(newSection(t.Elem())), k)
		if typeWord(t.Elem()) == "section" {
			item.Type = "object"
		}
		item.Default = nil
		n := &schemaNode{Type: []string{"array", "null"}, Items: item}
		if v.Len() > 0 {
			n.Default = schemaDefault(v)
		}
		return n
	case "map":
		item := schemaValue(newSection(t.Elem()).Elem(), key{})
		item.Default = nil
		return &schemaNode{Type: []string{"object", "null"}, Additional: item}
	}
	if t.Kind() == reflect.Pointer {
		return schemaScalar(t.Elem(), k)
	}
	n := schemaScalar(t, k)
	if !(v.Kind() == reflect.String && v.Len() == 0) {
		n.Default = schemaDefault(v)
	}
	return n
}

func schemaScalar(t reflect.Type, k key) *schemaNode {
	zero, hundred := 0, 100
	switch {
	case t == durationType:
		z := json.Number("0")
		return &schemaNode{AnyOf: []*schemaNode{{Type: "string", Pattern: durationPattern}, {Const: &z}}}
	case len(k.words) > 0:
		n := &schemaNode{Type: "string", Enum: k.words}
		if k.forms != nil {
			return &schemaNode{AnyOf: []*schemaNode{n, {Type: "string", Pattern: k.forms.Pattern()}}}
		}
		for _, w := range k.words {
			if strings.Trim(w, "0123456789.") == "" {
				return &schemaNode{AnyOf: []*schemaNode{n, {Type: "number"}}}
			}
		}
		return n
	case isText(t):
		// A number is taken by how it is written.
		return &schemaNode{Type: []string{"string", "integer"}}
	}
	switch t.Kind() {
	case reflect.String:
		return &schemaNode{Type: "string"}
	case reflect.Bool:
		return &schemaNode{Type: "boolean"}
	case reflect.Float64, reflect.Float32:
		n := &schemaNode{Type: "number"}
		if strings.HasSuffix(k.name, "_percent") && strings.HasPrefix(k.id, reflect.TypeFor[Config]().PkgPath()+".") {
			n.Minimum, n.Maximum = &zero, &hundred
		}
		return n
	}
	n := &schemaNode{Type: "integer"}
	if isUnsigned(t) {
		n.Minimum = &zero
	}
	return n
}

// schemaDefault is the value as JSON has it.
func schemaDefault(v reflect.Value) any {
	switch {
	case v.Kind() == reflect.Slice:
		items := make([]any, v.Len())
		for i := range items {
			items[i] = schemaDefault(v.Index(i))
		}
		return items
	case v.Type() == durationType:
		return scalarOrList(v)
	case isText(v.Type()):
		text, _ := textOf(v)
		return text
	}
	return v.Interface()
}
