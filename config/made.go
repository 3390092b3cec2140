package config

import (
	"cmp"
	"reflect"
	"strconv"
	"strings"
)

// Base is what a file says of a configuration to which something else adds the
// rest: only its form has been checked. A nil Base says nothing.
type Base struct {
	file string
	root *node
}

// LoadBase reads the file at path as a Base. The error is a Problems.
func LoadBase(path string) (*Base, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return ParseBase(path, data)
}

// ParseBase reads a Base from data; file is the name used in positions. An empty
// file is one that says nothing. The error is a Problems.
func ParseBase(file string, data []byte) (*Base, error) {
	root, problems := readNode(file, data)
	if len(problems) > 0 {
		return nil, problems.sorted()
	}
	return &Base{file: file, root: root}, nil
}

// Over returns b with layers over it, which win over what b says, such as what
// was given on the command line. The error is a Problems.
func (b *Base) Over(layers ...Layer) (*Base, error) {
	n := &Base{}
	if b != nil {
		*n = *b
	}
	for _, l := range layers {
		over, problems := l.node()
		if len(problems) > 0 {
			return nil, problems
		}
		n.root = overlaid(n.root, over)
	}
	return n, nil
}

// Layer is a part of a configuration in its own language that came from
// elsewhere than a file.
type Layer struct {
	// From is how the place is called where it came from: "Consul proxy-defaults/global".
	From string
	// Path is where in the configuration it belongs; empty for the whole.
	Path []string
	// Data is JSON or YAML.
	Data []byte
}

// Making is a configuration that is being made in code, over what was written.
type Making struct {
	// Config has what was written over the defaults.
	Config *Config

	file    string
	origins origins
}

// Make begins a configuration with the layers, of which later ones win over
// earlier ones and the Base over all. The error is a Problems with every
// mistake in their form.
func (b *Base) Make(layers ...Layer) (*Making, error) {
	m := &Making{origins: origins{}}
	var root *node
	var problems Problems
	for _, l := range layers {
		n, wrong := l.node()
		problems = append(problems, wrong...)
		root = overlaid(root, n)
	}
	if b != nil {
		m.file = b.file
		root = overlaid(root, b.root)
	}
	c := Default()
	d := &decoder{origins: m.origins, problems: problems}
	if root != nil {
		d.section(root, reflect.ValueOf(&c).Elem(), "")
	}
	if len(d.problems) > 0 {
		return nil, d.problems.sorted()
	}
	if c.Policies == nil {
		c.Policies = map[string]Policy{}
	}
	if _, ok := c.Policies[AnyService]; !ok {
		c.Policies[AnyService] = DefaultPolicy()
	}
	m.Config = &c
	return m, nil
}

// node returns the layer as a tree from the root; nil when it says nothing or
// cannot be read.
func (l *Layer) node() (*node, Problems) {
	n, wrong := readNode(l.From, l.Data)
	for i := range wrong {
		wrong[i].Position = Position{File: l.From}
		wrong[i].Path = joinKeys(l.Path)
	}
	if n == nil {
		return nil, wrong
	}
	pos := Position{File: l.From}
	n.placed(pos)
	for i := len(l.Path) - 1; i >= 0; i-- {
		n = &node{kind: kindMapping, pos: pos, entries: []entry{{key: l.Path[i], pos: pos, value: n}}}
	}
	return n, wrong
}

func joinKeys(keys []string) string {
	path := ""
	for _, k := range keys {
		path = joinKey(path, k)
	}
	return path
}

// placed gives n and all below it one place.
func (n *node) placed(pos Position) {
	n.pos = pos
	for i := range n.entries {
		n.entries[i].pos = pos
		n.entries[i].value.placed(pos)
	}
	for i := range n.repeats {
		n.repeats[i].pos = pos
	}
	for _, item := range n.items {
		item.placed(pos)
	}
}

// overlaid returns over laid over n: sections are joined key by key, whatever
// else over says is in place of what n does. Neither is changed.
func overlaid(n, over *node) *node {
	switch {
	case n == nil:
		return over
	case over == nil || over.kind == kindNull && n.kind == kindMapping:
		return n
	case n.kind != kindMapping || over.kind != kindMapping:
		return over
	}
	joined := &node{kind: kindMapping, pos: over.pos, repeats: over.repeats}
	taken := map[string]*node{}
	for _, e := range over.entries {
		taken[e.key] = e.value
	}
	for _, e := range n.entries {
		if v, ok := taken[e.key]; ok {
			e.value = overlaid(e.value, v)
			delete(taken, e.key)
		}
		joined.entries = append(joined.entries, e)
	}
	for _, e := range over.entries {
		if _, ok := taken[e.key]; ok {
			joined.entries = append(joined.entries, e)
		}
	}
	return joined
}

// Given reports whether the value at path was written, or noted by Came.
func (m *Making) Given(path string) bool {
	_, ok := m.origins[path]
	return ok
}

// Came notes where the value at path came from, in words such as
// "Consul service-defaults/api".
func (m *Making) Came(path, from string) {
	m.origins[path] = Origin{Position: Position{File: from}}
}

// Problem says what is wrong with the value at path, which nothing else may add
// to any more.
func (m *Making) Problem(path, message string) Problem {
	return Problem{Position: m.origins.nearest(cmp.Or(m.file, "default"), path), Path: path, Message: message}
}

// Check returns what is wrong with the section of that name for who needs it
// before the rest is there; nil when nothing is. The error is a Problems.
func (m *Making) Check(section string) error {
	var problems Problems
	m.Config.Validate(func(path, problem string) {
		if path == section || strings.HasPrefix(path, section+".") {
			problems = append(problems, m.Problem(path, problem))
		}
	})
	if len(problems) > 0 {
		return problems.sorted()
	}
	return nil
}

// Policy returns what was written of the policy for calls to service, else the
// policy "*". It shares nothing with m; put it back into Config.Policies.
func (m *Making) Policy(service string) Policy {
	p, ok := m.Config.Policies[service]
	if !ok {
		p = m.Config.Policies[AnyService]
	}
	return deepCopy(reflect.ValueOf(p)).Interface().(Policy)
}

// Derive fills in what follows from other values, as Loaded does, for whoever
// compares before that.
func (m *Making) Derive() { derived(m.Config, m.origins) }

func derived(c *Config, o origins) {
	if c.Inbound.Protocol == "" {
		o["inbound.protocol"] = Origin{Position: o["service.protocol"].Position, Via: "service.protocol"}
	}
	c.derive()
}

// Loaded fills in what follows from other values and checks everything. The
// error is a Problems; m must not be used any more.
func (m *Making) Loaded(name string) (*Loaded, error) {
	return finish(name, m.Config, m.origins)
}

// Made returns the configuration c, which was made in code from Default; origins
// say in words where values came from, by path. Everything is checked as for a
// file; the error is a Problems. c must not be used any more.
func Made(name string, c *Config, from map[string]string) (*Loaded, error) {
	o := origins{}
	for path, words := range from {
		o[path] = Origin{Position: Position{File: words}}
	}
	return finish(name, c, o)
}

func finish(name string, c *Config, o origins) (*Loaded, error) {
	derived(c, o)
	var problems Problems
	check := func(path, problem string) {
		at := o.nearest("", path)
		if at.File == "" {
			at = Position{File: name}
		}
		problems = append(problems, Problem{Position: at, Path: path, Message: problem})
	}
	c.Validate(check)
	c.checkWritten(o, check)
	if len(problems) > 0 {
		return nil, problems.withoutInherited(o).sorted()
	}
	return &Loaded{Config: c, File: name, origins: o}, nil
}

// UpstreamPath is where the upstream at index i stands.
func UpstreamPath(i int) string { return "outbound.upstreams[" + strconv.Itoa(i) + "]" }
