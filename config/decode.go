package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decoder fills a configuration from a tree, over the values that are there.
type decoder struct {
	origins  origins
	problems Problems
	// wrong are the paths whose value could not be taken. What validation
	// says about them follows from that and is left out.
	wrong []string
	// places are the paths of all keys by their last step; made when needed.
	places map[string][]string
}

func (d *decoder) fail(pos Position, path, message string) {
	d.problems = append(d.problems, Problem{Position: pos, Path: path, Message: message})
	d.wrong = append(d.wrong, path)
}

// section decodes the keys of n into the struct v. A section may be empty, as
// when all its keys are commented out; it is then as if written {}.
func (d *decoder) section(n *node, v reflect.Value, path string) {
	if n.kind == kindNull {
		return
	}
	if n.kind != kindMapping {
		d.fail(n.pos, path, fmt.Sprintf("must be a section of keys, not %s; known here: %s", describe(n), strings.Join(keyNames(keysOf(v.Type())), ", ")))
		return
	}
	keys := keysOf(v.Type())
	d.repeats(n, path)
	for _, e := range n.entries {
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == e.key })
		if i < 0 {
			d.unknown(e, path, keys)
			continue
		}
		k := keys[i]
		d.value(e.value, e.pos, v.Field(k.index), joinKey(path, k.name), k)
	}
}

func (d *decoder) repeats(n *node, path string) {
	for _, e := range n.repeats {
		i := slices.IndexFunc(n.entries, func(o entry) bool { return o.key == e.key })
		d.fail(e.pos, joinKey(path, e.key), fmt.Sprintf("is already given at line %d; keep one of the two", n.entries[i].pos.Line))
	}
}

func (d *decoder) unknown(e entry, path string, keys []key) {
	names := keyNames(keys)
	message := "is not a key that exists"
	near, elsewhere := nearest(e.key, names), d.placesOf(e.key)
	if len(elsewhere) > 0 && (near == "" || editDistance(e.key, near) > 1) {
		message += " here; it belongs at " + strings.Join(elsewhere, " or ")
	} else {
		message += didYouMean(e.key, names)
		if near = cmp.Or(near, akin(e.key, names)); near != "" {
			d.wrong = append(d.wrong, joinKey(path, near))
		}
	}
	d.fail(e.pos, joinKey(path, e.key), message)
}

// placesOf returns where a key of this name exists, when that is at most two places.
func (d *decoder) placesOf(name string) []string {
	if d.places == nil {
		d.places = map[string][]string{}
		for _, f := range Fields() {
			last := f.Path[strings.LastIndexByte(f.Path, '.')+1:]
			d.places[last] = append(d.places[last], f.Path)
		}
	}
	if p := d.places[name]; len(p) <= 2 {
		return p
	}
	return nil
}

// value decodes n into v. keyPos is where its key stands, or the item of a list.
func (d *decoder) value(n *node, keyPos Position, v reflect.Value, path string, k key) {
	t := v.Type()
	switch word := typeWord(t); word {
	case "section":
		d.origins[path] = Origin{Position: keyPos}
		if t.Kind() != reflect.Pointer {
			d.section(n, v, path)
			return
		}
		d.optional(n, v, path, k)
	case "list":
		d.list(n, keyPos, v, path, k)
	case "map":
		d.origins[path] = Origin{Position: keyPos}
		d.mapping(n, v, path)
	default:
		if n.kind == kindNull {
			d.fail(keyPos, path, "has no value; write one or remove the key")
			return
		}
		set := v
		if t.Kind() == reflect.Pointer {
			set = reflect.New(t.Elem()).Elem()
		}
		if problem := setScalar(n, set, k); problem != "" {
			d.fail(n.pos, path, problem)
			return
		}
		if t.Kind() == reflect.Pointer {
			v.Set(set.Addr())
		}
		d.origins[path] = Origin{Position: n.pos}
	}
}

// offSection is a section for which "off" is not the same as its absence.
type offSection interface {
	setOff()
	isOff() bool
}

// writtenOff reports whether a section is switched off by that word.
func writtenOff(v reflect.Value) bool {
	s, ok := v.Interface().(offSection)
	return ok && !v.IsNil() && s.isOff()
}

// optional decodes a section that may be absent.
func (d *decoder) optional(n *node, v reflect.Value, path string, k key) {
	off := n.kind == kindString && n.text == "off" || n.kind == kindBool && n.text == "false"
	switch {
	case k.off && off:
		d.origins[path] = Origin{Position: n.pos}
		v.SetZero()
		if s, ok := reflect.New(v.Type().Elem()).Interface().(offSection); ok {
			s.setOff()
			v.Set(reflect.ValueOf(s))
		}
		return
	case k.off && n.kind != kindMapping && n.kind != kindNull:
		d.fail(n.pos, path, fmt.Sprintf("must be a section of keys or off, not %s", describe(n)))
		return
	}
	if v.IsNil() {
		v.Set(newSection(v.Type().Elem()))
	}
	d.section(n, v.Elem(), path)
}

// list decodes a list, which replaces the one that is there.
func (d *decoder) list(n *node, keyPos Position, v reflect.Value, path string, k key) {
	items := n.items
	switch {
	case n.kind == kindNull:
		return
	case n.kind != kindSequence:
		d.fail(n.pos, path, fmt.Sprintf("must be a list, not %s; write [%s]", describe(n), n.text))
		return
	}
	d.origins[path] = Origin{Position: keyPos}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		e := list.Index(i)
		if typeWord(e.Type()) == "section" && e.Kind() == reflect.Struct {
			e.Set(newSection(e.Type()).Elem())
			if item.kind == kindNull {
				d.fail(item.pos, joinIndex(path, i), "is empty; write its keys or remove the item")
				continue
			}
		}
		d.value(item, item.pos, e, joinIndex(path, i), k)
	}
	v.Set(list)
}

// mapping decodes a section whose keys the author chooses. For policies, "*"
// comes first whatever its place, and the others start from it.
func (d *decoder) mapping(n *node, v reflect.Value, path string) {
	if n.kind == kindNull {
		return
	}
	if n.kind != kindMapping {
		d.fail(n.pos, path, fmt.Sprintf("must be a section of keys, not %s", describe(n)))
		return
	}
	d.repeats(n, path)
	elem := v.Type().Elem()
	base := newSection(elem).Elem()
	inherits := elem == reflect.TypeFor[Policy]()
	entries := n.entries
	if inherits {
		entries = slices.Clone(entries)
		slices.SortStableFunc(entries, func(a, b entry) int {
			return boolInt(b.key == AnyService) - boolInt(a.key == AnyService)
		})
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(entries)))
	for _, e := range entries {
		value := reflect.New(elem).Elem()
		value.Set(deepCopy(base))
		at := joinKey(path, e.key)
		d.value(e.value, e.pos, value, at, key{})
		v.SetMapIndex(reflect.ValueOf(e.key), value)
		if inherits && e.key == AnyService {
			base = value
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// setScalar sets v from a scalar; the problem is "" when it could.
func setScalar(n *node, v reflect.Value, k key) (problem string) {
	t := v.Type()
	if t == durationType {
		d, problem := parseDuration(n)
		if problem == "" {
			v.SetInt(int64(d))
		}
		return problem
	}
	if isText(t) || len(k.words) > 0 {
		return setWord(n, v, k)
	}
	switch t.Kind() {
	case reflect.String:
		if n.kind != kindString {
			return fmt.Sprintf("must be text, not %s%s", describe(n), quoteRemedy(n))
		}
		v.SetString(n.text)
	case reflect.Bool:
		if n.kind != kindBool {
			return fmt.Sprintf("must be true or false, not %s", describe(n))
		}
		v.SetBool(n.text == "true" || n.text == "True" || n.text == "TRUE")
	case reflect.Float64, reflect.Float32:
		f, err := strconv.ParseFloat(n.text, 64)
		if n.kind != kindInt && n.kind != kindFloat || err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			if p, ok := strings.CutSuffix(n.text, "%"); ok {
				return fmt.Sprintf("must be a number, not %s; write %s", describe(n), p)
			}
			return fmt.Sprintf("must be a finite number, not %s", describe(n))
		}
		v.SetFloat(f)
	default:
		return setInteger(n, v)
	}
	return ""
}

func setInteger(n *node, v reflect.Value) string {
	if n.kind != kindInt {
		remedy := ""
		if _, err := strconv.ParseInt(n.text, 10, 64); err == nil {
			remedy = "; write it without quotes"
		}
		return fmt.Sprintf("must be a whole number, not %s%s", describe(n), remedy)
	}
	var err error
	if isUnsigned(v.Type()) {
		if strings.HasPrefix(n.text, "-") {
			return fmt.Sprintf("is %s; it cannot be negative", n.text)
		}
		var u uint64
		if u, err = strconv.ParseUint(n.text, 10, v.Type().Bits()); err == nil {
			v.SetUint(u)
		}
	} else {
		var i int64
		if i, err = strconv.ParseInt(n.text, 10, v.Type().Bits()); err == nil {
			v.SetInt(i)
		}
	}
	if err != nil {
		return fmt.Sprintf("is %s, which is out of range", n.text)
	}
	return ""
}

// setWord sets a value that is one of a set of words. A number is taken by how
// it is written: 1.3 is the word "1.3".
func setWord(n *node, v reflect.Value, k key) string {
	if n.kind == kindMapping || n.kind == kindSequence || n.kind == kindNull {
		return fmt.Sprintf("must be %s, not %s", orList(k.words), describe(n))
	}
	if len(k.words) > 0 && k.forms == nil && !slices.Contains(k.words, n.text) && !(isText(v.Type()) && takes(v.Type(), n.text)) {
		message := fmt.Sprintf("is %q; must be %s", n.text, orList(k.words))
		if near := nearest(n.text, k.words); near != "" && len(k.words) > 2 {
			message += fmt.Sprintf("; did you mean %q?", near)
		}
		return message
	}
	if !isText(v.Type()) {
		v.SetString(n.text)
		return ""
	}
	u := reflect.New(v.Type())
	if err := u.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.text)); err != nil {
		for w := errors.Unwrap(err); w != nil; w = errors.Unwrap(err) {
			err = w
		}
		return fmt.Sprintf("is %q: %v", n.text, err)
	}
	v.Set(u.Elem())
	return ""
}

// takes reports whether a type that isText takes a word that is not among those
// it writes, such as one in other letters.
func takes(t reflect.Type, word string) bool {
	return reflect.New(t).Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(word)) == nil
}

// describe says what a node is, with its text when that is short.
func describe(n *node) string {
	switch {
	case n.kind == kindMapping || n.kind == kindSequence || n.kind == kindNull:
		return n.kind.String()
	case len(n.text) > 60:
		return n.kind.String()
	case n.kind == kindString:
		return fmt.Sprintf("the text %q", n.text)
	case n.kind == kindBool:
		return n.text
	}
	return n.text
}

func quoteRemedy(n *node) string {
	if n.kind == kindMapping || n.kind == kindSequence {
		return ""
	}
	return fmt.Sprintf("; put it in quotes: %q", n.text)
}

func orList(words []string) string {
	switch len(words) {
	case 0:
		return "a word"
	case 1:
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// scalarOrList writes a scalar, or a list of scalars in brackets, as YAML.
func scalarOrList(v reflect.Value) string {
	if v.Kind() == reflect.Slice && !isText(v.Type()) {
		items := make([]string, v.Len())
		for i := range items {
			items[i] = scalarOrList(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	switch {
	case v.Type() == durationType:
		return formatDuration(time.Duration(v.Int()))
	case isText(v.Type()):
		text, _ := textOf(v)
		return quoteYAML(text)
	}
	switch v.Kind() {
	case reflect.String:
		return quoteYAML(v.String())
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Float64, reflect.Float32:
		return strconv.FormatFloat(v.Float(), 'f', -1, 64)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10)
	}
	return strconv.FormatInt(v.Int(), 10)
}
