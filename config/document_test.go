package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// recipe is a document that is no configuration.
type recipe struct {
	Name     string            `yaml:"name"`
	Wait     time.Duration     `yaml:"wait"`
	Parts    []part            `yaml:"parts"`
	Policies map[string]Policy `yaml:"policies"`
}

func (r *recipe) SetDefaults() { r.Wait = time.Second }

type part struct {
	Count int `yaml:"count"`
}

func (p *part) SetDefaults() { p.Count = 3 }

func (r *recipe) check(add func(path, problem string)) {
	if r.Name == "" {
		add("name", "is required")
	}
	CheckPolicies("policies", r.Policies, []string{"api"}, add)
}

func TestDocument(t *testing.T) {
	var r recipe
	err := ParseDocument("r.yaml", []byte("name: x\nparts: [{}, {count: 5}]\npolicies: {'*': {timeout: 2s}, api: {retry: off}}\n"), &r, r.check)
	if err != nil {
		t.Fatal(err)
	}
	if r.Wait != time.Second || len(r.Parts) != 2 || r.Parts[0].Count != 3 || r.Parts[1].Count != 5 {
		t.Errorf("%+v", r)
	}
	if p := PolicyOf(r.Policies, "api"); p.Timeout != 2*time.Second || p.Retry != nil || p.Outlier == nil {
		t.Errorf("%+v", p)
	}
	if p := PolicyOf(nil, "api"); p.Retry == nil {
		t.Errorf("without policies the default does not hold: %+v", p)
	}
}

func TestDocumentMistakes(t *testing.T) {
	var r recipe
	err := ParseDocument("r.yaml", []byte("nam: x\nwait: 3\nparts: [{count: many}]\npolicies:\n  apo: {retry: {attempts: 0}}\n  api: {balance: {hash: [{header: x}]}}\n"), &r, r.check)
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	want := []string{
		`r.yaml:1:1: nam: is not a key that exists; did you mean "name"?`,
		`r.yaml:2:7: wait:`,
		`r.yaml:3:17: parts[0].count: must be a whole number`,
		`r.yaml:5:3: policies.apo: is none of the services; did you mean "api"?`,
		`r.yaml:5:27: policies.apo.retry.attempts: must be between`,
		`r.yaml:6:19: policies.api.balance.hash: has no effect`,
	}
	if len(problems) != len(want) {
		t.Fatalf("%v", err)
	}
	for i := range want {
		if !strings.HasPrefix(problems[i].Error(), want[i]) {
			t.Errorf("%s\nwant %s", problems[i].Error(), want[i])
		}
	}
	if err := ParseDocument("r.yaml", nil, &r, r.check); err == nil || err.Error() != "r.yaml:1:1: is empty" {
		t.Errorf("%v", err)
	}
	if err := LoadDocument(filepath.Join(t.TempDir(), "gone"), &r, r.check); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("%v", err)
	}
}

func TestLoadPolicies(t *testing.T) {
	const whole = "service: {name: web}\noutbound: {upstreams: [{service: api, listen: '127.0.0.1:9001'}]}\npolicies: {api: {transport: plaintext, timeout: 3s}}\ndiscovery: {file: {path: /x}}\n"
	for text, want := range map[string]string{ // what the error has, or "" for none
		whole:                                    "",
		"policies: {api: {timeout: 3s}}":         "",
		"policies: {api: {timeout: 3}}":          "x.yaml:1:27: policies.api.timeout:",
		"policies: {}":                           "policies: is required",
		"timeout: 3s":                            "timeout: is not a key that exists",
		"service: {nam: web}\npolicies: {}\n":    "service.nam:",
		whole + "drain: {delay: -1s}":            "drain.delay:",
		"services: {a: {}}\npolicies: {a: {}}\n": "services: is not a key that exists",
	} {
		file := filepath.Join(t.TempDir(), "x.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := LoadPolicies(file)
		switch {
		case want == "" && (err != nil || p["api"].Timeout != 3*time.Second):
			t.Errorf("%q: %v, %+v", text, err, p)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
