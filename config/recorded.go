package config

import "reflect"

// ParseEffective reads what WriteEffective wrote, which has been in force: every
// value is written out, also those that a person must not write, and secrets are
// hidden. So only its form is checked.
func ParseEffective(file string, data []byte) (*Loaded, error) {
	root, problems := readNode(file, data)
	if root == nil {
		return nil, problems.sorted()
	}
	c := Default()
	d := &decoder{origins: origins{}, problems: problems}
	d.section(root, reflect.ValueOf(&c).Elem(), "")
	c.derive()
	if len(d.problems) > 0 {
		return nil, d.problems.sorted()
	}
	return &Loaded{Config: &c, File: file, origins: d.origins}, nil
}
