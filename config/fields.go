package config

import (
	"encoding"
	"reflect"
	"strings"
	"time"
)

// Field is one key of the configuration, as the reference and the schema show it.
type Field struct {
	// Path is where the key stands: "policies.<service>.retry.attempts". Steps
	// in angle brackets are chosen by the author, "[]" is each item of a list.
	Path string
	// Type is one of "section", "list", "map", "text", "true or false",
	// "whole number", "number", "duration".
	Type string
	// Of is the type of the items of a list or map, else "".
	Of string
	// Default is the value that holds when the key is absent, as YAML; "" for none.
	Default string
	// Words are the values allowed, when they are a fixed set.
	Words []string
	// Off says that the section may be replaced by the word "off".
	Off bool
	// Doc is the description.
	Doc string
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// key is a field of a struct that has a place in the file.
type key struct {
	name  string // as written in the file
	index int    // in the struct
	off   bool   // a section that takes "off"
	words []string
	forms wordForms // what is written otherwise; nil of a type that has words alone
	id    string    // "import/path.Type.Field", by which its doc comment is found
}

// keysOf returns the keys of a struct type in the order of its fields. A
// field without a yaml tag, or with "-", is no part of the file.
func keysOf(t reflect.Type) []key {
	keys := make([]key, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" || name == "-" || !f.IsExported() {
			continue
		}
		k := key{name: name, index: i, off: f.Tag.Get("off") == "true", id: t.PkgPath() + "." + t.Name() + "." + f.Name}
		if words := f.Tag.Get("enum"); words != "" {
			k.words = strings.Split(words, ",")
		} else {
			k.words = wordsOf(f.Type)
			k.forms = formsOf(f.Type)
		}
		keys = append(keys, k)
	}
	return keys
}

func keyNames(keys []key) []string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	return names
}

// isText reports whether values of t are written as a word that the type
// itself reads and writes.
func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(textType)
}

// wordForms is a type whose values are words or of another form.
type wordForms interface {
	Words() []string
	Pattern() string // the regular expression of the other form
}

// formsOf returns those of t, or of what it points to; nil without any.
func formsOf(t reflect.Type) wordForms {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	f, _ := reflect.Zero(t).Interface().(wordForms)
	return f
}

// wordsOf returns the words of a type that counts its values from zero or one
// and reads and writes them as text. The first number that does not come back
// as itself ends the set.
func wordsOf(t reflect.Type) []string {
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if f := formsOf(t); f != nil {
		return f.Words()
	}
	if !isText(t) || t.Kind() != reflect.Uint8 {
		return nil
	}
	var words []string
	for i := range uint64(256) {
		v := reflect.New(t)
		v.Elem().SetUint(i)
		text, ok := textOf(v.Elem())
		back := reflect.New(t)
		err := back.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
		switch {
		case ok && text != "" && err == nil && back.Elem().Uint() == i:
			words = append(words, text)
		case i > 0:
			return words
		}
	}
	return words
}

// textOf returns the word of a value whose type isText.
func textOf(v reflect.Value) (string, bool) {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, err := m.MarshalText()
		return string(b), err == nil
	}
	return "", false
}

// Fields returns every key of the configuration, depth first in the order of the file.
func Fields() []Field {
	c := Default()
	c.Policies = map[string]Policy{AnyService: DefaultPolicy()}
	w := fieldWalk{}
	w.section("", reflect.ValueOf(c))
	return w.fields
}

type fieldWalk struct{ fields []Field }

func (w *fieldWalk) section(path string, v reflect.Value) {
	for _, k := range keysOf(v.Type()) {
		w.field(joinField(path, k.name), k, v.Field(k.index))
	}
}

func (w *fieldWalk) field(path string, k key, v reflect.Value) {
	t := v.Type()
	f := Field{Path: path, Words: k.words, Off: k.off, Doc: fieldDoc(k.id), Type: typeWord(t)}
	switch f.Type {
	case "section":
		if t.Kind() == reflect.Pointer {
			if _, inherits := v.Interface().(offSection); k.off && v.IsNil() && !inherits {
				f.Default = "off"
			}
			if v.IsNil() {
				v = newSection(t.Elem())
			}
			v = v.Elem()
		}
		w.fields = append(w.fields, f)
		w.section(path, v)
		return
	case "list":
		f.Of = typeWord(t.Elem())
		w.fields = append(w.fields, f.withDefault(v))
		if f.Of == "section" {
			w.section(path+"[]", newSection(t.Elem()).Elem())
		}
		return
	case "map":
		f.Of = typeWord(t.Elem())
		w.fields = append(w.fields, f)
		if f.Of == "section" {
			w.section(path+"."+mapKeyWord(path), newSection(t.Elem()).Elem())
		}
		return
	}
	w.fields = append(w.fields, f.withDefault(v))
}

// mapKeyWord is what the reference calls the keys of a map that the author chooses.
func mapKeyWord(path string) string {
	if path == "policies" {
		return "<service>"
	}
	return "<name>"
}

func (f Field) withDefault(v reflect.Value) Field {
	if v = reflect.Indirect(v); !v.IsValid() {
		return f
	}
	if v.Kind() == reflect.Slice && v.Len() == 0 || v.Kind() == reflect.String && v.Len() == 0 {
		return f
	}
	f.Default = scalarOrList(v)
	return f
}

func isUnsigned(t reflect.Type) bool {
	return t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64 && !isText(t)
}

func typeWord(t reflect.Type) string {
	switch {
	case t == durationType:
		return "duration"
	case isText(t):
		return "text"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeWord(t.Elem())
	case reflect.Struct:
		return "section"
	case reflect.Slice:
		return "list"
	case reflect.Map:
		return "map"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64, reflect.Float32:
		return "number"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "whole number"
	}
	return "unsupported " + t.String()
}
