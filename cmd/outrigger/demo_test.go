package main

import (
	"strings"
	"testing"
)

func TestDemoMistakes(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--duration", "2s"}, "--duration 2s"},
		{[]string{"--rate", "0"}, "--rate 0"},
		{[]string{"--consul-addr", "http://127.0.0.1:8500"}, "needs --consul"},
		{[]string{"app"}, "--listen is required"},
		{[]string{"other"}, `unknown command "other"`},
	} {
		if out, err := execute(t, newDemoCommand(), c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
}

func TestDemoHidesItsApplication(t *testing.T) {
	out, err := execute(t, newDemoCommand(), "--help")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "\n  app ") || !strings.Contains(out, "--consul-addr") {
		t.Errorf("%s", out)
	}
}
