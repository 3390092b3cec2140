package devca

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// serve runs a server until the test ends and returns a client of it.
func serve(t *testing.T, cfg Config) (*Server, workload.SpiffeWorkloadAPIClient) {
	t.Helper()
	if cfg.TrustDomain == "" {
		cfg.TrustDomain = "d.test"
	}
	cfg.Socket = "unix://" + filepath.Join(t.TempDir(), "dir", "api.sock")
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatalf("Run: %v", err)
	}
	conn, err := grpc.NewClient(s.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		if _, err := os.Stat(s.path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return s, workload.NewSpiffeWorkloadAPIClient(conn)
}

// calling is the context of a well-formed call, bounded in time.
func calling(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
}

func uid() Selector { return UID(uint32(os.Getuid())) }

func stream(t *testing.T, c workload.SpiffeWorkloadAPIClient) grpc.ServerStreamingClient[workload.X509SVIDResponse] {
	t.Helper()
	s, err := c.FetchX509SVID(calling(t), &workload.X509SVIDRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// receive returns the identities of the next message.
func receive(t *testing.T, s grpc.ServerStreamingClient[workload.X509SVIDResponse]) (*workload.X509SVIDResponse, string) {
	t.Helper()
	resp, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, svid := range resp.Svids {
		cert, err := x509.ParseCertificate(svid.X509Svid)
		if err != nil {
			t.Fatal(err)
		}
		if len(cert.URIs) != 1 || cert.URIs[0].String() != svid.SpiffeId {
			t.Errorf("the SVID of %s holds %v", svid.SpiffeId, cert.URIs)
		}
		key, err := x509.ParsePKCS8PrivateKey(svid.X509SvidKey)
		if err != nil || key == nil {
			t.Errorf("key: %v", err)
		}
		ids = append(ids, strings.TrimPrefix(svid.SpiffeId, "spiffe://d.test/")+"="+svid.Hint)
	}
	return resp, strings.Join(ids, " ")
}

func TestCallersAreToldApart(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	entry := func(path, hint string, s ...Selector) Entry {
		return Entry{ID: mustID(t, "spiffe://d.test/"+path), Hint: hint, Selectors: s}
	}
	gid := GID(uint32(os.Getgid()))
	other := UID(uint32(os.Getuid()) + 1)
	_, client := serve(t, Config{Entries: []Entry{
		entry("uid", "internal", uid()),
		entry("other-uid", "", other),
		entry("gid", "", gid),
		entry("pid", "", PID(os.Getpid())),
		entry("parent", "", PID(os.Getppid())),
		entry("exe", "", Exe(exe)),
		entry("other-exe", "", Exe("/bin/false")),
		entry("all", "", uid(), gid, PID(os.Getpid()), Exe(exe)),
		entry("all-but-one", "", uid(), gid, other),
	}})
	resp, ids := receive(t, stream(t, client))
	if want := "uid=internal gid= pid= exe= all="; ids != want {
		t.Errorf("got %q, want %q", ids, want)
	}
	if len(resp.FederatedBundles) != 0 {
		t.Errorf("federated bundles %v", resp.FederatedBundles)
	}
}

func TestRefusals(t *testing.T) {
	_, client := serve(t, Config{Entries: []Entry{{ID: mustID(t, "spiffe://d.test/x"), Selectors: []Selector{UID(uint32(os.Getuid()) + 1)}}}})
	bare, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	call := func(ctx context.Context) map[string]error {
		svid, err := client.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
		if err != nil {
			t.Fatal(err)
		}
		bundles, err := client.FetchX509Bundles(ctx, &workload.X509BundlesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]error{}
		_, out["svid"] = svid.Recv()
		_, out["bundles"] = bundles.Recv()
		_, out["jwt"] = client.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{Audience: []string{"a"}})
		return out
	}
	for name, err := range call(bare) {
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s without header: %v", name, err)
		}
	}
	for name, err := range call(metadata.AppendToOutgoingContext(bare, "workload.spiffe.io", "false")) {
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s with a wrong header: %v", name, err)
		}
	}
	want := map[string]codes.Code{"svid": codes.PermissionDenied, "bundles": codes.PermissionDenied, "jwt": codes.Unimplemented}
	for name, err := range call(calling(t)) {
		if status.Code(err) != want[name] {
			t.Errorf("%s: %v, want %s", name, err, want[name])
		}
		if name == "svid" && !strings.Contains(err.Error(), "no identity issued") {
			t.Errorf("svid: %v", err)
		}
	}
}

func TestRegisterAtRunTime(t *testing.T) {
	s, client := serve(t, Config{})
	if _, err := stream(t, client).Recv(); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("before any entry: %v", err)
	}
	mine := Entry{ID: mustID(t, "spiffe://d.test/a"), Selectors: []Selector{PID(os.Getpid())}}
	if err := s.Register(mine); err != nil {
		t.Fatal(err)
	}
	open := stream(t, client)
	first, ids := receive(t, open)
	if ids != "a=" {
		t.Errorf("got %q", ids)
	}
	// Neither a repetition nor somebody else's entry is news for this caller.
	if err := s.Register(mine); err != nil {
		t.Fatal(err)
	}
	if err := s.Register(Entry{ID: mustID(t, "spiffe://d.test/parent"), Selectors: []Selector{PID(os.Getppid())}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Register(Entry{ID: mustID(t, "spiffe://d.test/b"), Selectors: []Selector{uid()}}); err != nil {
		t.Fatal(err)
	}
	second, ids := receive(t, open)
	if ids != "a= b=" {
		t.Errorf("got %q", ids)
	}
	if string(first.Svids[0].X509Svid) == string(second.Svids[0].X509Svid) {
		t.Error("the second message repeats a certificate")
	}

	// Entries of ended processes go, and one cannot be made for them.
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Skip(err)
	}
	gone := Entry{ID: mustID(t, "spiffe://d.test/child"), Selectors: []Selector{PID(child.Process.Pid)}}
	if err := s.Register(gone); err != nil {
		t.Error(err)
	}
	count := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.entries)
	}
	if n := count(); n != 4 {
		t.Errorf("%d entries, want 4", n)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if err := s.Register(gone); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("entry for an ended process: %v", err)
	}
	if err := s.Register(Entry{ID: mustID(t, "spiffe://d.test/c"), Selectors: []Selector{uid()}}); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 4 {
		t.Errorf("%d entries, want 4 after the child's went", n)
	}
	for _, bad := range []Entry{
		{ID: mustID(t, "spiffe://o.test/a"), Selectors: []Selector{uid()}},
		{ID: mustID(t, "spiffe://d.test"), Selectors: []Selector{uid()}},
		{ID: mustID(t, "spiffe://d.test/a")},
		{Selectors: []Selector{uid()}},
		{ID: mustID(t, "spiffe://d.test/a"), Selectors: []Selector{{}}},
	} {
		if err := s.Register(bad); err == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

func TestRotationIsPushed(t *testing.T) {
	_, client := serve(t, Config{TTL: 400 * time.Millisecond, Entries: []Entry{{ID: mustID(t, "spiffe://d.test/a"), Selectors: []Selector{uid()}}}})
	s := stream(t, client)
	var last *x509.Certificate
	for range 3 {
		resp, _ := receive(t, s)
		cert, err := x509.ParseCertificate(resp.Svids[0].X509Svid)
		if err != nil {
			t.Fatal(err)
		}
		if last != nil && (cert.SerialNumber.Cmp(last.SerialNumber) == 0 || cert.NotAfter.Before(last.NotAfter)) {
			t.Errorf("rotation gave serial %s until %s after %s until %s", cert.SerialNumber, cert.NotAfter, last.SerialNumber, last.NotAfter)
		}
		last = cert
	}
}

func TestBundles(t *testing.T) {
	other, err := NewAuthority("o.test")
	if err != nil {
		t.Fatal(err)
	}
	s, client := serve(t, Config{
		Entries:   []Entry{{ID: mustID(t, "spiffe://d.test/a"), Selectors: []Selector{uid()}}},
		Federated: map[string][]*x509.Certificate{"o.test": {other.Root()}},
	})
	b, err := client.FetchX509Bundles(calling(t), &workload.X509BundlesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Bundles) != 2 || string(resp.Bundles["spiffe://d.test"]) != string(s.Authority().Root().Raw) || string(resp.Bundles["spiffe://o.test"]) != string(other.Root().Raw) {
		t.Errorf("bundles %v", resp.Bundles)
	}
	svids, _ := receive(t, stream(t, client))
	if string(svids.FederatedBundles["spiffe://o.test"]) != string(other.Root().Raw) || string(svids.Svids[0].Bundle) != string(s.Authority().Root().Raw) {
		t.Error("the SVID answer lacks a bundle")
	}
}

func TestSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "api.sock")
	run := func(socket string) error {
		s, err := New(Config{TrustDomain: "d.test", Socket: socket})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			select {
			case <-s.Ready():
				cancel()
			case <-ctx.Done():
			}
		}()
		return s.Run(ctx)
	}
	if err := run(path); !errors.Is(err, context.Canceled) {
		t.Errorf("a plain path: %v", err)
	}
	// A socket whose owner died without removing it.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := run(path); err == nil || !strings.Contains(err.Error(), "served by another process") {
		t.Errorf("a socket in use: %v", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := run("unix://" + path); !errors.Is(err, context.Canceled) {
		t.Errorf("a socket left behind: %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if err := run(filepath.Join(path, "x", "api.sock")); err == nil {
		t.Error("a socket below a file")
	}
	nested := filepath.Join(dir, "new", "api.sock")
	if err := run(nested); !errors.Is(err, context.Canceled) {
		t.Errorf("a new directory: %v", err)
	}
	if info, err := os.Stat(filepath.Dir(nested)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the new directory: %v, %v", info.Mode(), err)
	}
	for _, bad := range []string{"", "relative.sock", "unix:relative", "tcp://127.0.0.1:1", "/" + strings.Repeat("x", 107)} {
		if _, err := New(Config{TrustDomain: "d.test", Socket: bad}); err == nil {
			t.Errorf("socket %q was accepted", bad)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	ca, err := NewAuthority("d.test")
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"no trust domain":          {},
		"negative life":            {TrustDomain: "d.test", TTL: -1},
		"another authority":        {TrustDomain: "o.test", Authority: ca},
		"entry of another domain":  {TrustDomain: "d.test", Entries: []Entry{{ID: mustID(t, "spiffe://o.test/a"), Selectors: []Selector{uid()}}}},
		"federated with itself":    {TrustDomain: "d.test", Federated: map[string][]*x509.Certificate{"d.test": {ca.Root()}}},
		"directory that is a file": {TrustDomain: "d.test", Dir: "/dev/null"},
	} {
		cfg.Socket = "/run/x.sock"
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	s, err := New(Config{Authority: ca, Socket: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run with an ended context: %v", err)
	}
	if err := s.Run(ctx); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a second Run: %v", err)
	}
}
