package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const smallScenario = `
title: Small
duration: 10s
services: {api: {endpoints: 2, service_time: exponential 10ms}}
arrivals: [{to: api, rate: 50}]
expect: [goodput >= 100%, p99 < 200ms]
`

func TestSimulate(t *testing.T) {
	file := writeConfig(t, "s.yaml", smallScenario)
	svg := filepath.Join(t.TempDir(), "out.svg")
	out, err := execute(t, newSimulateCommand(), file, "--chart", svg)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Small\n", "10s simulated, seed 1: ", "\nAPI ", "\npolicies ", "100.00%", "\nok", "goodput >= 100%", "found 100.00%"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if b, err := os.ReadFile(svg); err != nil || !bytes.HasPrefix(b, []byte("<svg ")) {
		t.Errorf("%v, %.100s", err, b)
	}
}

func TestSimulateJSON(t *testing.T) {
	file := writeConfig(t, "s.yaml", smallScenario)
	var seeds [3]string
	for i, seed := range []string{"1", "7", "7"} {
		out, err := execute(t, newSimulateCommand(), file, "--json", "--seed", seed)
		if err != nil {
			t.Fatal(err)
		}
		var res struct {
			Seed uint64
			Runs []struct {
				Services []struct{ Counts struct{ Good uint64 } }
			}
		}
		if err := json.Unmarshal([]byte(out), &res); err != nil || res.Runs[0].Services[0].Counts.Good < 300 {
			t.Fatalf("%v\n%s", err, out)
		}
		seeds[i] = out
	}
	if seeds[0] == seeds[1] || seeds[1] != seeds[2] {
		t.Error("the seed does not decide what comes out")
	}
}

func TestSimulatePolicy(t *testing.T) {
	file := writeConfig(t, "s.yaml", smallScenario)
	other := writeConfig(t, "strict.yaml", `policies: {api: {timeout: 1ms, retry: off}}`)
	out, err := execute(t, newSimulateCommand(), file, "--policy", other)
	var code *exitCode
	if !errors.As(err, &code) || code.code != exitUnmet {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"\nscenario ", "\nstrict ", "NOT MET  strict"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	for name, text := range map[string]string{
		"scenario.yaml": `policies: {api: {}}`,  // a variant has that name
		"other.yaml":    `policies: {apii: {}}`, // for no service here
		"wrong.yaml":    `policies: {api: {timeout: 1}}`,
	} {
		if out, err := execute(t, newSimulateCommand(), file, "--policy", writeConfig(t, name, text)); err == nil || errors.As(err, &code) {
			t.Errorf("%s is taken: %v\n%s", name, err, out)
		}
	}
}

func TestSimulateMistakes(t *testing.T) {
	file := writeConfig(t, "s.yaml", "services: {api: {slot: 3}}\narrivals: [{to: web, rate: 5}]\n")
	_, err := execute(t, newSimulateCommand(), file)
	var code *exitCode
	if err == nil || errors.As(err, &code) {
		t.Fatal(err)
	}
	for _, want := range []string{`s.yaml:1:18: services.api.slot: is not a key that exists; did you mean "slots"?`, `s.yaml:2:17: arrivals[0].to: is "web", which is none of the services: api`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
}
