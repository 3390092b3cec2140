package config

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func schemaTree(t *testing.T) map[string]any {
	t.Helper()
	b, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

// check is a validator for the part of JSON Schema that Schema uses. It
// returns the first fault, "" for none.
func check(schema map[string]any, v any, path string) string {
	for word := range schema {
		if !slices.Contains([]string{
			"$schema", "title", "description", "default", "type", "enum", "const", "pattern",
			"minimum", "maximum", "items", "properties", "required", "additionalProperties", "anyOf",
		}, word) {
			return "the schema uses " + word + ", which this test does not know"
		}
	}
	if alternatives, ok := schema["anyOf"].([]any); ok {
		if !slices.ContainsFunc(alternatives, func(s any) bool { return check(s.(map[string]any), v, path) == "" }) {
			return path + ": none of the alternatives"
		}
	}
	if c, ok := schema["const"]; ok && fmt.Sprint(c) != fmt.Sprint(v) {
		return path + ": is not the constant"
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Sprintf("%s: %v is not one of %v", path, v, enum)
	}
	if fault := checkType(schema["type"], v, path); fault != "" {
		return fault
	}
	switch v := v.(type) {
	case string:
		if p, ok := schema["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(v) {
			return fmt.Sprintf("%s: %q does not match", path, v)
		}
	case float64:
		if low, ok := schema["minimum"].(float64); ok && v < low {
			return path + ": too small"
		}
		if high, ok := schema["maximum"].(float64); ok && v > high {
			return path + ": too large"
		}
	case []any:
		for i, item := range v {
			if items, ok := schema["items"].(map[string]any); ok {
				if fault := check(items, item, joinIndex(path, i)); fault != "" {
					return fault
				}
			}
		}
	case map[string]any:
		return checkObject(schema, v, path)
	}
	return ""
}

func checkType(want, v any, path string) string {
	if want == nil {
		return ""
	}
	words, ok := want.([]any)
	if !ok {
		words = []any{want}
	}
	got := ""
	switch v := v.(type) {
	case nil:
		got = "null"
	case bool:
		got = "boolean"
	case string:
		got = "string"
	case float64:
		got = "number"
		if v == math.Trunc(v) && slices.Contains(words, any("integer")) {
			got = "integer"
		}
	case []any:
		got = "array"
	case map[string]any:
		got = "object"
	}
	if !slices.Contains(words, any(got)) {
		return fmt.Sprintf("%s: is %s, not %v", path, got, want)
	}
	return ""
}

func checkObject(schema, v map[string]any, path string) string {
	properties, _ := schema["properties"].(map[string]any)
	for _, name := range asList(schema["required"]) {
		if _, ok := v[name.(string)]; !ok {
			return fmt.Sprintf("%s: %s is missing", path, name)
		}
	}
	for name, value := range v {
		below, ok := properties[name].(map[string]any)
		if !ok {
			switch additional := schema["additionalProperties"].(type) {
			case bool:
				if !additional {
					return joinKey(path, name) + ": is not allowed"
				}
				continue
			case map[string]any:
				below = additional
			}
		}
		if fault := check(below, value, joinKey(path, name)); fault != "" {
			return fault
		}
	}
	return ""
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

// readJSON reads YAML as an editor does: into the values that JSON has.
func readJSON(t *testing.T, data []byte) (v any, ok bool) {
	t.Helper()
	b, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, false
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, false
	}
	return v, true
}

func TestSchemaTakesGood(t *testing.T) {
	schema := schemaTree(t)
	for _, path := range files(t, "testdata/good/*", 7) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		v, ok := readJSON(t, []byte(strings.TrimPrefix(string(data), "%YAML 1.2\n---\n")))
		if !ok {
			t.Errorf("%s cannot be read", path)
			continue
		}
		if fault := check(schema, v, ""); fault != "" {
			t.Errorf("%s: %s", path, fault)
		}
	}
}

// The schema refuses what is wrong with one value by itself.
func TestSchemaRefusesBad(t *testing.T) {
	schema := schemaTree(t)
	for _, name := range []string{
		"unknown-top-key", "unknown-key-misspelt-section", "unknown-key-nested", "unknown-key-elsewhere",
		"duration-without-unit", "duration-words", "duration-negative", "duration-wrong-type", "wrong-types",
		"section-is-list", "root-is-list", "root-is-text", "no-name", "enum-protocol", "enum-mtls", "enum-mode",
		"enum-retry-on", "policy-off-words", "percent", "null-scalar", "telemetry", "upstream-twice", "unicode-columns",
		"authorization",
	} {
		v, ok := readJSON(t, []byte(badCase(t, filepath.Join("testdata/bad", name+".txt"))))
		if !ok {
			t.Errorf("%s cannot be read", name)
			continue
		}
		if fault := check(schema, v, ""); fault == "" {
			t.Errorf("the schema takes %s", name)
		}
	}
}

// Every default in the schema is a value that the schema itself takes, and
// every key has a description and a type that the loader knows.
func TestSchemaOfItself(t *testing.T) {
	var walk func(path string, s map[string]any)
	walk = func(path string, s map[string]any) {
		if d, ok := s["default"]; ok {
			if fault := check(s, d, path); fault != "" {
				t.Errorf("default %v: %s", d, fault)
			}
		}
		properties, _ := s["properties"].(map[string]any)
		for name, p := range properties {
			below := p.(map[string]any)
			if below["description"] == nil {
				t.Errorf("%s has no description", joinKey(path, name))
			}
			if s["additionalProperties"] != false {
				t.Errorf("%s takes unknown keys", path)
			}
			walk(joinKey(path, name), below)
		}
		if items, ok := s["items"].(map[string]any); ok {
			walk(path+"[]", items)
		}
		for _, alternative := range asList(s["anyOf"]) {
			walk(path, alternative.(map[string]any))
		}
		if additional, ok := s["additionalProperties"].(map[string]any); ok {
			walk(path+".<name>", additional)
		}
	}
	tree := schemaTree(t)
	walk("", tree)
	if tree["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("$schema = %v", tree["$schema"])
	}
}

func TestFields(t *testing.T) {
	seen := map[string]Field{}
	for _, f := range Fields() {
		if f.Doc == "" {
			t.Errorf("%s has no description; run go generate", f.Path)
		}
		if strings.HasPrefix(f.Type, "unsupported") || strings.HasPrefix(f.Of, "unsupported") {
			t.Errorf("%s has the type %s %s, which the loader cannot read", f.Path, f.Type, f.Of)
		}
		if _, dup := seen[f.Path]; dup {
			t.Errorf("%s is there twice", f.Path)
		}
		seen[f.Path] = f
	}
	for path, want := range map[string]Field{
		"service.port":                            {Type: "whole number", Default: "0"},
		"identity.min_tls":                        {Type: "text", Words: []string{"1.3", "1.2"}},
		"policies":                                {Type: "map", Of: "section"},
		"policies.<service>.breaker":              {Type: "section", Default: "off", Off: true},
		"policies.<service>.breaker.open_for":     {Type: "duration", Default: "5s"},
		"policies.<service>.outlier.mode":         {Type: "text", Default: "enforce", Words: []string{"enforce", "observe"}},
		"policies.<service>.identities":           {Type: "list", Of: "text"},
		"outbound.upstreams[].protocol":           {Type: "text", Default: "http", Words: []string{"http", "http2", "grpc", "tcp", "auto"}},
		"identity.files.bundles":                  {Type: "map", Of: "text"},
		"authorization.rules[].action":            {Type: "text", Default: "allow", Words: []string{"allow", "deny", "require"}},
		"telemetry.tracing.sampling_percent":      {Type: "number", Default: "1"},
		"policies.<service>.balance.algorithm":    {Type: "text", Default: "p2c_ewma", Words: []string{"p2c_ewma", "weighted_round_robin", "least_request", "random", "least_time", "ring_hash", "maglev"}},
		"discovery.consul.register.check.timeout": {Type: "duration", Default: "2s"},
	} {
		got := seen[path]
		want.Path, want.Doc = path, got.Doc
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}
