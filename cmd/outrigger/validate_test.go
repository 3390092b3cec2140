package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

const (
	goodFile = "../../config/testdata/good/full.yaml"
	goodJSON = "../../config/testdata/good/same.json"
)

// execute runs one command and returns what it wrote to standard output.
func execute(t *testing.T, cmd *cobra.Command, args ...string) (string, error) {
	t.Helper()
	var out, errs strings.Builder
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(append([]string{}, args...)) // of none, those of the test's own process would be taken
	err := cmd.Execute()
	return out.String(), err
}

func writeConfig(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestValidateGood(t *testing.T) {
	out, err := execute(t, newValidateCommand(), goodFile, goodJSON)
	if want := goodFile + ": valid\n" + goodJSON + ": valid\n"; err != nil || out != want {
		t.Errorf("%v, %q", err, out)
	}
	out, err = execute(t, newValidateCommand(), "--quiet", goodFile)
	if err != nil || out != "" {
		t.Errorf("quiet: %v, %q", err, out)
	}
}

func TestValidateBad(t *testing.T) {
	one := writeConfig(t, "one.yaml", "service: {name: web}\ndrain: {delay: 5}\nadmn: {}\n")
	two := writeConfig(t, "two.yaml", "service: {port: 1}\ninbound: {mtls: off}\n")
	out, err := execute(t, newValidateCommand(), one, goodFile, two, "no-such-file.yaml")
	want := one + `:2:16: drain.delay: 5 has no unit; write 5s
` + one + `:3:1: admn: is not a key that exists; did you mean "admin"?
` + goodFile + `: valid
` + two + `:1:1: service.name: is required; name the service this proxy stands beside
no-such-file.yaml:1:1: cannot be read: no such file or directory
`
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	if err == nil || err.Error() != "4 mistakes in 3 files" {
		t.Errorf("error %v", err)
	}
	_, err = execute(t, newValidateCommand(), two)
	if err == nil || err.Error() != "1 mistake in 1 file" {
		t.Errorf("error %v", err)
	}
}

func TestValidateNeedsAFile(t *testing.T) {
	if _, err := execute(t, newValidateCommand()); err == nil {
		t.Error("no file is taken")
	}
}
