package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/devca"
	"github.com/outrigger-mesh/outrigger/mtls/workload"
)

func TestParseEntry(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"spiffe://demo.test/web=unix:uid:1000", "spiffe://demo.test/web unix:uid:1000"},
		{"spiffe://demo.test/web=unix:uid:0,unix:gid:5", "spiffe://demo.test/web unix:uid:0 unix:gid:5"},
		{"spiffe://demo.test/web=unix:path:/opt/a,b=c,unix:gid:5", "spiffe://demo.test/web unix:path:/opt/a,b=c unix:gid:5"},
		{"spiffe://demo.test/web", "error: write SPIFFE-ID=SELECTOR"},
		{"demo.test/web=unix:uid:1", "error: "},
		{"spiffe://demo.test/web=uid:1", "error: write unix:uid:N"},
		{"spiffe://demo.test/web=", "error: write unix:uid:N"},
		{"spiffe://demo.test/web=unix:uid:1,", `error: "1," is not a number`},
	} {
		e, err := parseEntry(c.text)
		if want, ok := strings.CutPrefix(c.want, "error: "); ok {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--entry ") {
				t.Errorf("%s: %v", c.text, err)
			}
			continue
		}
		got := e.ID.String()
		for _, s := range e.Selectors {
			got += " " + s.String()
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v", c.text, got, err)
		}
	}
}

func TestDevCAMistakes(t *testing.T) {
	good := []string{"--trust-domain", "demo.test", "--socket", "unix:///tmp/x/agent.sock", "--entry", "spiffe://demo.test/web=unix:uid:1"}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, `required flag(s) "entry", "socket", "trust-domain" not set`},
		{append(good, "--ttl", "0s"), "--ttl 0s"},
		{append(good, "--entry", "x"), `--entry "x"`},
		{append(good, "--socket", "agent.sock"), "unix:///absolute/path"},
		{append(good, "--trust-domain", "other.test"), "is not of the trust domain"},
		{append(good, "extra"), `unknown command "extra"`},
	} {
		cmd := newDevCACommand()
		cmd.SetContext(t.Context())
		if _, err := execute(t, cmd, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
}

// A workload gets the identity of its entry from the command, and the command
// ends in order.
func TestDevCA(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "devca-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, bundle := "unix://"+filepath.Join(dir, "s", "agent.sock"), filepath.Join(dir, "bundle.pem")
	ctx, cancel := context.WithCancel(t.Context())
	cmd := newDevCACommand()
	cmd.SetContext(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := execute(t, cmd, "--trust-domain", "demo.test", "--socket", socket, "--dir", filepath.Join(dir, "root"),
			"--bundle-out", bundle, "--entry", "spiffe://demo.test/web="+devca.UID(uint32(os.Geteuid())).String())
		ended <- err
	}()
	src := workload.New(workload.Config{Socket: socket})
	run := make(chan error, 1)
	go func() { run <- src.Run(ctx) }()
	wait, stop := context.WithTimeout(ctx, 20*time.Second)
	m, err := mtls.Wait(wait, src)
	stop()
	if err != nil {
		t.Error(err)
	} else if m.ID.String() != "spiffe://demo.test/web" {
		t.Errorf("identity %s", m.ID)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-run
	pem, err := os.ReadFile(bundle)
	if err != nil || !strings.HasPrefix(string(pem), "-----BEGIN CERTIFICATE-----") {
		t.Errorf("bundle %q, %v", pem, err)
	}
}
