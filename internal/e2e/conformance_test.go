package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"
)

const conformanceVersion = "v1.0.7"

// buildConformance returns the folder with the programs of the Connect
// conformance suite: CONFORMANCE_DIR, or one in the user's cache directory,
// where they are built when CI=true.
func buildConformance(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("CONFORMANCE_DIR"); dir != "" {
		return dir
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("no cache directory: ", err)
	}
	dir := filepath.Join(cache, "outrigger", "connectconformance-"+conformanceVersion)
	names := []string{"grpcserver", "referenceserver", "connectconformance"}
	if _, err := os.Stat(filepath.Join(dir, names[len(names)-1])); err == nil {
		return dir
	}
	if os.Getenv("CI") != "true" {
		t.Skip("no connectconformance: set CONFORMANCE_DIR, or set CI=true to have it built")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	// The module has replacements, which "go install" refuses.
	scratch := t.TempDir()
	run := func(args ...string) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = scratch, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
	}
	const cmds = "connectrpc.com/conformance/cmd/"
	run("mod", "init", "scratch")
	get := []string{"get", "-tool"}
	for _, name := range names {
		get = append(get, cmds+name+"@"+conformanceVersion)
	}
	run(get...)
	for _, name := range names {
		run("build", "-o", filepath.Join(dir, name), cmds+name)
	}
	return dir
}

// conformanceServer writes a program that starts one of the suite's servers on
// a port and says that it listens on another one.
func conformanceServer(t *testing.T, server string, port, said int) string {
	t.Helper()
	dir := t.TempDir()
	msg := append([]byte{0x0a, 9}, "127.0.0.1"...) // ServerCompatResponse.host
	msg = binary.AppendUvarint(append(msg, 0x10), uint64(said))
	answer := filepath.Join(dir, "answer")
	writeFile(t, answer, string(binary.BigEndian.AppendUint32(nil, uint32(len(msg))))+string(msg))
	script := filepath.Join(dir, "server.sh")
	writeFile(t, script, fmt.Sprintf(`#!/bin/sh
exec 3<&0
out=$(mktemp -p %s)
%s -port %d <&3 >"$out" &
pid=$!
trap 'kill $pid' TERM INT
while [ ! -s "$out" ] && kill -0 $pid; do sleep 0.02; done
cat %s
wait $pid
wait $pid
`, dir, server, port, answer))
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	return script
}

// The Connect conformance suite has the same results through two sidecars as
// without them.
func TestConnectConformance(t *testing.T) {
	t.Parallel()
	dir := buildConformance(t)
	for _, c := range []struct {
		name, server, version, protocols, between string
	}{
		{"gRPC", "grpcserver", "HTTP_VERSION_2", "PROTOCOL_GRPC", "grpc"},
		{"HTTP 2", "referenceserver", "HTTP_VERSION_2", "PROTOCOL_CONNECT, PROTOCOL_GRPC, PROTOCOL_GRPC_WEB", "http2"},
		{"HTTP 1", "referenceserver", "HTTP_VERSION_1", "PROTOCOL_CONNECT, PROTOCOL_GRPC_WEB", "http"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMesh(t)
			port := freePort(t)
			// What is measured is what comes of one call each, not what many
			// failures together lead to.
			alone := sections{"policies": "{api: {retry: off, outlier: off, breaker: off}}"}
			p := m.pairAs(c.between, c.between, port, alone, nil)
			var said int
			if _, err := fmt.Sscanf(p.address, "127.0.0.1:%d", &said); err != nil {
				t.Fatal(err)
			}
			conf := filepath.Join(t.TempDir(), "conf.yaml")
			writeFile(t, conf, fmt.Sprintf("features:\n  versions: [%s]\n  protocols: [%s]\n  codecs: [CODEC_PROTO]\n  supportsTls: false\n", c.version, c.protocols))
			run := func(said int) (failed []string, text string) {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
				defer cancel()
				cmd := exec.CommandContext(ctx, filepath.Join(dir, "connectconformance"), "--conf", conf, "--mode", "server", "--max-servers", "1", "--",
					conformanceServer(t, filepath.Join(dir, c.server), port, said))
				out, _ := cmd.CombinedOutput() // it fails where a case does
				text = string(out)
				for _, f := range regexp.MustCompile(`(?m)^FAILED: (.*?):?$`).FindAllStringSubmatch(text, -1) {
					failed = append(failed, f[1])
				}
				slices.Sort(failed)
				if m := regexp.MustCompile(`(?m)^Total cases: (\d+)$`).FindStringSubmatch(text); m == nil || len(m[1]) < 3 {
					t.Fatalf("not the whole suite: %s", tail(text, 4000))
				}
				return failed, text
			}
			without, plain := run(port)
			through, mesh := run(said)
			if !slices.Equal(without, through) {
				t.Errorf("without the sidecars %d cases fail:\n%s\nthrough them %d:\n%s", len(without), tail(plain, 3000), len(through), tail(mesh, 6000))
			}
		})
	}
}
