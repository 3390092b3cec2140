package config

import (
	"errors"
	"reflect"
	"slices"
)

// Defaulter is a section of a Document that has values before its keys are read.
type Defaulter interface {
	// SetDefaults is called on a zero value.
	SetDefaults()
}

// LoadDocument is ParseDocument of the file at path.
func LoadDocument(path string, into any, check func(add func(path, problem string))) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	return ParseDocument(path, data, into, check)
}

// ParseDocument reads a file that is no proxy's configuration but is written in
// the same language, such as a scenario, into a pointer to a struct whose fields
// have yaml tags; policies in it are those of a configuration. check is then
// asked for what is wrong with the values. The error is a Problems with every
// mistake, in the order of the file.
func ParseDocument(file string, data []byte, into any, check func(add func(path, problem string))) error {
	root, problems := readNode(file, data)
	if root == nil {
		if len(problems) == 0 {
			problems = Problems{{Position: Position{File: file, Line: 1, Column: 1}, Message: "is empty"}}
		}
		return problems.sorted()
	}
	v := reflect.ValueOf(into).Elem()
	if s, ok := into.(Defaulter); ok {
		s.SetDefaults()
	}
	d := &decoder{origins: origins{}, problems: problems, places: map[string][]string{}}
	d.section(root, v, "")
	check(func(path, problem string) {
		for _, w := range d.wrong {
			if within(path, w) || within(w, path) {
				return
			}
		}
		d.problems = append(d.problems, Problem{Position: d.origins.nearest(file, path), Path: path, Message: problem})
	})
	if len(d.problems) > 0 {
		return d.problems.withoutInherited(d.origins).sorted()
	}
	return nil
}

// CheckPolicies calls add for each mistake in policies, which stand at path and
// are for services that speak HTTP.
func CheckPolicies(path string, policies map[string]Policy, services []string, add func(path, problem string)) {
	c := Default()
	c.Identity.WorkloadAPI = "unix:///any" // mtls is the default, and no connection is made
	for _, s := range services {
		c.Outbound.Upstreams = append(c.Outbound.Upstreams, Upstream{Service: s, Protocol: ProtocolHTTP})
	}
	v := &validator{Config: &c, add: add, said: map[string]bool{}}
	for _, name := range sortedKeys(reflect.ValueOf(policies)) {
		at, p := joinKey(path, name), policies[name]
		if name != AnyService && !slices.Contains(services, name) {
			v.say(at, "is none of the services%s", didYouMean(name, services))
		}
		if len(p.Failover) > 0 {
			v.say(at+".failover", "is not simulated; leave it out")
		}
		v.policy(at, name, &p)
	}
	v.machines(reflect.ValueOf(policies), path)
	v.generic(reflect.ValueOf(policies), path)
}

// PolicyOf is Config.Policy of policies without a configuration around them.
func PolicyOf(policies map[string]Policy, service string) Policy {
	c := Config{Policies: policies}
	return c.Policy(service)
}

// LoadPolicies reads the policies in the file at path: those of a proxy's
// configuration, or of a file that has nothing but policies. The error is a
// Problems.
func LoadPolicies(path string) (map[string]Policy, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	loaded, whole := Parse(path, data)
	if whole == nil {
		return loaded.Config.Policies, nil
	}
	var alone struct {
		Policies map[string]Policy `yaml:"policies"`
	}
	err = ParseDocument(path, data, &alone, func(add func(path, problem string)) {
		names := sortedKeys(reflect.ValueOf(alone.Policies))
		if len(names) == 0 {
			add("policies", "is required: what each service is called by, under its name or \"*\"")
		}
		CheckPolicies("policies", alone.Policies, names, add)
	})
	var problems Problems
	if err == nil || !errors.As(err, &problems) {
		return alone.Policies, err
	}
	for i := range problems {
		if p := problems[i].Path; p != "" && !within(p, "policies") {
			return nil, whole // it is a configuration, or is to be one
		}
	}
	return nil, problems
}
