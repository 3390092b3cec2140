package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestConfigEffective(t *testing.T) {
	out, err := execute(t, newConfigCommand(), "effective", goodFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nservice:\n", "# " + goodFile + ":1:17\n", "# default\n", "(policies.*)\n"} {
		if !strings.Contains("\n"+out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	// What is printed is a configuration itself.
	again := writeConfig(t, "again.yaml", out)
	if out, err := execute(t, newValidateCommand(), again); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestConfigEffectiveJSON(t *testing.T) {
	out, err := execute(t, newConfigCommand(), "effective", "--json", goodJSON)
	if err != nil {
		t.Fatal(err)
	}
	var got []struct{ Path, Value, Origin string }
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 || got[0].Path != "service.name" || got[0].Value != "web" || got[0].Origin != goodJSON+":2:23" {
		t.Errorf("first of %d: %+v", len(got), got[:min(len(got), 1)])
	}
}

func TestConfigEffectiveBad(t *testing.T) {
	path := writeConfig(t, "bad.yaml", "service: {name: web}\nadmn: {}\n")
	out, err := execute(t, newConfigCommand(), "effective", path)
	if err == nil || !strings.Contains(err.Error(), path+`:2:1: admn: is not a key that exists; did you mean "admin"?`) {
		t.Errorf("error %v", err)
	}
	if strings.Contains(out, "# default") {
		t.Errorf("values are printed of a file that is not valid:\n%s", out)
	}
}

func TestConfigSchema(t *testing.T) {
	out, err := execute(t, newConfigCommand(), "schema")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("../../docs/reference/config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if out != string(want) {
		t.Error("the schema printed is not the one in docs/reference; run go generate ./config")
	}
}
