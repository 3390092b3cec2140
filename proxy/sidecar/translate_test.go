package sidecar

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// Each testdata/NAME.json is a snapshot; NAME.base.yaml, where there is one, the
// file beside it; NAME.golden what comes of them: every value that something was
// said of with its origin, then the findings, then what is wrong.
func TestTranslate(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no snapshots", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".json")
		t.Run(filepath.Base(name), func(t *testing.T) {
			got := describe(t, name)
			golden := name + ".golden"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; look at what has changed, and run the test with -update:\n%s", golden, got)
			}
		})
	}
}

func describe(t *testing.T, name string) []byte {
	s := readSnapshot(t, name+".json")
	base, err := config.LoadBase("testdata/base.yaml")
	if own := name + ".base.yaml"; exists(own) {
		base, err = config.LoadBase(own)
	}
	if err != nil {
		t.Fatal(err)
	}
	loaded, findings, err := Translate(base, s, nil)
	var b bytes.Buffer
	if loaded != nil {
		for _, v := range loaded.Effective() {
			if v.Origin != "default" && !strings.HasSuffix(v.Origin, "(policies.*)") {
				fmt.Fprintf(&b, "%s: %s  # %s\n", v.Path, v.Value, v.Origin)
			}
		}
	}
	for _, f := range findings {
		fmt.Fprintf(&b, "finding %s\n", f)
	}
	if err != nil {
		fmt.Fprintf(&b, "error %v\n", err)
	}
	return b.Bytes()
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return !errors.Is(err, os.ErrNotExist)
}

func readSnapshot(t *testing.T, file string) *mesh.Snapshot {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	s := new(mesh.Snapshot)
	if err := dec.Decode(s); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return s
}
