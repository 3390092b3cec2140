package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// eachPair runs f as a subtest for each protocol by which sidecars can carry a
// database: in front of a sidecar for the one on port app stands one for web,
// which calls it on the given port.
func eachPair(t *testing.T, app int, f func(t *testing.T, protocol, port string)) {
	t.Helper()
	for _, protocol := range []string{"tcp", "auto"} {
		t.Run(protocol, func(t *testing.T) {
			web, db, port := newMesh(t).tcpPair(protocol, app)
			f(t, protocol, port)
			relayed(t, web, db)
			if protocol == "tcp" {
				return
			}
			const m = "outrigger_listener_protocol_connections_total"
			if all, tcp := web.metric("outrigger_listener_connections_total"), web.metric(m, `protocol="tcp"`); tcp != all || web.metric(m, `how="timeout"`) != 0 {
				t.Errorf("%v of %v connections are known as TCP, %v of them for want of words", tcp, all, web.metric(m, `how="timeout"`))
			}
		})
	}
}

// tcpPair starts a sidecar for a TCP service on port app and one for web,
// which calls it, and returns the port for these calls.
func (m *mesh) tcpPair(protocol string, app int) (web, db *sidecar, port string) {
	m.t.Helper()
	db, inbound := m.inbound("db", app, sections{"service": fmt.Sprintf("{name: db, port: %d, protocol: %s}", app, protocol)})
	m.catalog(map[string][]string{"db": {inbound}})
	call := freeAddress(m.t)
	web = m.sidecar("web", sections{
		"service": "{name: web}", "discovery": m.discovery(),
		"outbound": fmt.Sprintf(`{upstreams: [{service: db, listen: "%s", protocol: %s}]}`, call, protocol),
	})
	db.ready()
	web.ready()
	_, port, _ = net.SplitHostPort(call)
	return web, db, port
}

// relayed checks that both sidecars have recorded connections with mTLS
// between them.
func relayed(t *testing.T, web, db *sidecar) {
	t.Helper()
	out := web.recorded("a connection", func(r *record) bool { return r.Protocol == "tcp" && r.Flag == "-" && r.BytesOut > 0 })
	in := db.recorded(fmt.Sprintf("the connection of %d and %d bytes", out.BytesIn, out.BytesOut), func(r *record) bool {
		return r.Protocol == "tcp" && r.Flag == "-" && r.BytesIn == out.BytesIn && r.BytesOut == out.BytesOut
	})
	if out.UpstreamID != spiffe("db") || in.DownstreamID != spiffe("web") {
		t.Errorf("identities: web saw %q, db saw %q", out.UpstreamID, in.DownstreamID)
	}
}

// unprivileged returns a folder and the credential of the user who owns it,
// for servers that refuse to run as root. The credential is nil where the test
// does not run as root.
func unprivileged(t *testing.T, names ...string) (string, *syscall.Credential) {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-db-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Getuid() != 0 {
		return dir, nil
	}
	for _, name := range append(names, "nobody") {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
		return dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Fatal("there is no user to run a database server as")
	return "", nil
}

// command makes a command that runs as somebody in a folder.
func command(dir string, as *syscall.Credential, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	}
	return cmd
}

// must runs a command to its end and returns what it prints.
func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("%q: %v", cmd.Args, err)
	}
	// A client that gets no answer would wait for ever.
	late := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !late.Stop() {
		t.Fatalf("%q has not ended within three minutes\n%s", cmd.Args, out.String())
	}
	if err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out.String())
	}
	return out.String()
}

// listening waits until something accepts connections on port.
func listening(t *testing.T, p *process, port int) {
	t.Helper()
	eventually(t, 60*time.Second, p.name+" listens", func() (bool, string) {
		if !p.running() {
			t.Fatalf("%s has ended", p.name)
		}
		c, err := net.Dial("tcp", loopback(port))
		if err != nil {
			return false, err.Error()
		}
		_ = c.Close()
		return true, ""
	})
}

// Redis: the server waits for the client.
func TestRedis(t *testing.T) {
	t.Parallel()
	server, cli := need(t, "redis-server"), need(t, "redis-cli")
	port := freePort(t)
	dir := t.TempDir()
	s := spawn(t, "redis", command(dir, nil, server, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir))
	listening(t, s, port)
	eachPair(t, port, func(t *testing.T, protocol, call string) {
		redis := func(stdin string, args ...string) string {
			t.Helper()
			cmd := command(dir, nil, cli, append([]string{"-h", "127.0.0.1", "-p", call}, args...)...)
			cmd.Stdin = strings.NewReader(stdin)
			return strings.TrimSpace(must(t, cmd))
		}
		if got := redis("", "ping"); got != "PONG" {
			t.Errorf("ping: %s", got)
		}
		large := strings.Repeat("large value ", 100_000)
		redis(large, "-x", "set", "large")
		if got := redis("", "get", "large"); got != strings.TrimSpace(large) {
			t.Errorf("%d bytes came back; %d were stored", len(got), len(large))
		}
		// Many commands in one write.
		if got := redis(strings.Repeat("incr "+protocol+"\n", 500)); !strings.HasSuffix(got, "\n500") {
			t.Errorf("500 commands: %s", tail(got, 40))
		}
	})
}

// PostgreSQL: the client speaks first, and asks for TLS before anything else.
func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	psql := need(t, "psql")
	var bin string
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) > 0 {
		bin = filepath.Dir(slices.Max(found))
	} else {
		bin = filepath.Dir(need(t, "postgres"))
	}
	dir, as := unprivileged(t, "postgres")
	data, port := filepath.Join(dir, "data"), freePort(t)
	must(t, command(dir, as, filepath.Join(bin, "initdb"), "-D", data, "-U", "e2e", "-A", "trust", "--no-sync", "-E", "UTF8"))
	s := spawn(t, "postgres", command(dir, as, filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-k", dir, "-F"))
	listening(t, s, port)
	// The server may still be starting up behind its open port.
	eventually(t, patience, "the server answers", func() (bool, string) {
		cmd := command(dir, nil, psql, "-XAtq", fmt.Sprintf("host=127.0.0.1 port=%d user=e2e dbname=postgres connect_timeout=10", port), "-c", "select 1")
		out, err := cmd.CombinedOutput()
		return err == nil, string(out)
	})
	eachPair(t, port, func(t *testing.T, protocol, call string) {
		query := func(sql string) string {
			t.Helper()
			cmd := command(dir, nil, psql, "-XAtq", "-v", "ON_ERROR_STOP=1", fmt.Sprintf("host=127.0.0.1 port=%s user=e2e dbname=postgres sslmode=prefer", call))
			cmd.Stdin = strings.NewReader(strings.ReplaceAll(sql, "TABLE", "t_"+protocol))
			return strings.TrimSpace(must(t, cmd))
		}
		if got := query("create table TABLE (n int, s text); insert into TABLE select g, repeat('x', 100) from generate_series(1, 20000) g; select count(*), sum(length(s)) from TABLE;"); got != "20000|2000000" {
			t.Errorf("rows and bytes: %s", got)
		}
		if got := query("copy TABLE to stdout;"); strings.Count(got, "\n") != 19999 {
			t.Errorf("copy gave %d lines", strings.Count(got, "\n")+1)
		}
	})
}

// MariaDB: the server speaks first.
func TestMariaDB(t *testing.T) {
	t.Parallel()
	server, install, client := need(t, "mariadbd"), need(t, "mariadb-install-db"), need(t, "mariadb")
	dir, as := unprivileged(t, "mysql")
	data, port := filepath.Join(dir, "data"), freePort(t)
	must(t, command(dir, as, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db"))
	s := spawn(t, "mariadb", command(dir, as, server, "--no-defaults", "--datadir="+data, "--bind-address=127.0.0.1", "--port="+strconv.Itoa(port),
		"--socket="+filepath.Join(dir, "s.sock"), "--pid-file="+filepath.Join(dir, "pid"), "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M"))
	listening(t, s, port)
	eachPair(t, port, func(t *testing.T, protocol, call string) {
		query := func(sql string) string {
			t.Helper()
			cmd := command(dir, nil, client, "--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--port="+call, "--user=root", "--batch", "--skip-column-names", "--max-allowed-packet=64M")
			cmd.Stdin = strings.NewReader(strings.ReplaceAll(sql, "BASE", "e2e_"+protocol))
			return strings.TrimSpace(must(t, cmd))
		}
		if got := query("create database BASE; use BASE; create table t (s longtext); insert into t values (repeat('y', 1000000)); select length(s) from t;"); got != "1000000" {
			t.Errorf("length: %s", got)
		}
		if got := query("select s from BASE.t;"); len(got) != 1_000_000 {
			t.Errorf("%d bytes came back", len(got))
		}
	})
}
