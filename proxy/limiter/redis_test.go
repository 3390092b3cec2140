package limiter

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

// fake is a Redis that answers what the test says.
type fake struct {
	t       testing.TB
	address string
	calls   atomic.Int64 // connections
	mu      sync.Mutex
	answer  func(args []string) string // "" closes the connection
	l       net.Listener
	conns   map[net.Conn]bool
	wg      sync.WaitGroup
}

func startFake(t testing.TB, wrap func(net.Listener) net.Listener, answer func([]string) string) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, address: l.Addr().String(), answer: answer, l: l, conns: map[net.Conn]bool{}}
	if wrap != nil {
		f.l = wrap(l)
	}
	f.wg.Go(func() {
		for {
			c, err := f.l.Accept()
			if err != nil {
				return
			}
			f.calls.Add(1)
			f.mu.Lock()
			f.conns[c] = true
			f.mu.Unlock()
			f.wg.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = f.l.Close()
		f.cut()
		f.wg.Wait()
	})
	return f
}

// cut closes all connections.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close()
	}
}

func (f *fake) say(answer func([]string) string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *fake) serve(c net.Conn) {
	defer func() {
		_ = c.Close()
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
	}()
	r := bufio.NewReader(c)
	for {
		var n, size int
		if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
			return
		}
		args := make([]string, n)
		for i := range args {
			if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
				return
			}
			b := make([]byte, size+2)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			args[i] = string(b[:size])
		}
		f.mu.Lock()
		answer := f.answer
		f.mu.Unlock()
		text := answer(args)
		if text == "" {
			return
		}
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
	}
}

func says(text string) func([]string) string { return func([]string) string { return text } }

// redisSpec is that of a Redis in plaintext whose answers may take long.
func redisSpec(address string, change func(*Redis)) Spec {
	c := DefaultRedis()
	c.Address, c.Transport, c.Timeout = address, Plaintext, maxTimeout
	if change != nil {
		change(&c)
	}
	return Spec{Redis: &c, RedisKey: "plaintext"}
}

func rated(requests int64, lease int) *Limit {
	return &Limit{Name: "inbound:shop:caller", Rate: &ratelimit.Config{Requests: requests, Per: time.Hour}, Lease: lease, Keys: 20_000}
}

// Each wrong answer is told apart, and none is taken for a decision.
func TestRedisAnswers(t *testing.T) {
	f := startFake(t, nil, says(""))
	for name, c := range map[string]struct {
		answer string
		want   ratelimit.Failure
		ok     bool
	}{
		"passes":               {"*4\r\n:1\r\n:4\r\n:0\r\n:9\r\n", ratelimit.NoFailure, true},
		"is empty":             {"*4\r\n:0\r\n:0\r\n:5000\r\n:9000\r\n", ratelimit.NoFailure, false},
		"loading":              {"-LOADING Redis is loading the dataset in memory\r\n", ratelimit.Refused, false},
		"no password":          {"-NOAUTH Authentication required.\r\n", ratelimit.Refused, false},
		"short of memory":      {"-OOM command not allowed\r\n", ratelimit.Refused, false},
		"more than asked":      {"*4\r\n:2\r\n:4\r\n:0\r\n:9\r\n", ratelimit.Malformed, false},
		"less than none":       {"*4\r\n:-1\r\n:4\r\n:1\r\n:9\r\n", ratelimit.Malformed, false},
		"a negative wait":      {"*4\r\n:0\r\n:0\r\n:-1\r\n:9\r\n", ratelimit.Malformed, false},
		"none, but no wait":    {"*4\r\n:0\r\n:0\r\n:0\r\n:9\r\n", ratelimit.Malformed, false},
		"too few numbers":      {"*2\r\n:1\r\n:1\r\n", ratelimit.Malformed, false},
		"a string":             {"$2\r\nOK\r\n", ratelimit.Malformed, false},
		"nothing":              {"$-1\r\n", ratelimit.Malformed, false},
		"HTTP":                 {"HTTP/1.1 400 Bad Request\r\n\r\n", ratelimit.Malformed, false},
		"two answers":          {":1\r\n:1\r\n", ratelimit.Malformed, false},
		"the end":              {"", ratelimit.Unreachable, false},
		"the end in between":   {"*4\r\n:1\r\n", ratelimit.Timeout, false},
		"silence":              {"silence", ratelimit.Timeout, false},
		"a wait without bound": {"*4\r\n:0\r\n:0\r\n:9223372036854775807\r\n:9223372036854775807\r\n", ratelimit.NoFailure, false},
	} {
		t.Run(name, func(t *testing.T) {
			f.say(says(c.answer))
			if c.answer == "silence" {
				f.say(says("+"))
			}
			set := newSet(t, redisSpec(f.address, func(r *Redis) {
				if c.want == ratelimit.Timeout {
					r.Timeout = 50 * time.Millisecond
				}
			}))
			a := set.Redis(rated(5, 1)).Take(set.now(), 0, caller)
			if a.Failure != c.want || a.OK != c.ok || (a.Err != nil) != (c.want != ratelimit.NoFailure) || a.Wait < 0 || a.Wait > ratelimit.MaxWait {
				t.Errorf("%+v, want %s, %v", a, c.want, c.ok)
			}
			if n := set.redis.inFlight.Load(); n != 0 {
				t.Errorf("%d questions are under way", n)
			}
		})
	}
}

// A script that Redis does not know is sent to it; one password and database
// are asked for on each connection.
func TestRedisGreeting(t *testing.T) {
	var mu sync.Mutex
	var log []string
	f := startFake(t, nil, func(args []string) string {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, strings.Join(args[:min(len(args), 3)], " "))
		switch args[0] {
		case "EVALSHA":
			return "-NOSCRIPT No matching script.\r\n"
		case "EVAL":
			log[len(log)-1] = "EVAL"
			return "*4\r\n:1\r\n:4\r\n:0\r\n:9\r\n"
		}
		return "+OK\r\n"
	})
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set := newSet(t, redisSpec(f.address, func(r *Redis) { r.Username, r.PasswordFile, r.Database = "web", file, 3 }))
	l := set.Redis(rated(5, 1))
	for range 2 {
		if a := l.Take(set.now(), 0, caller); !a.OK {
			t.Fatalf("%+v", a)
		}
	}
	sha := set.redis.script
	want := fmt.Sprintf("[AUTH web secret SELECT 3 EVALSHA %s 1 EVAL EVALSHA %s 1 EVAL]", sha, sha)
	if got := fmt.Sprint(log); got != want {
		t.Errorf("it was told %s, want %s", got, want)
	}
	for name, change := range map[string]func(*Redis){
		"no file":   func(r *Redis) { r.PasswordFile = file + "-none" },
		"no answer": func(r *Redis) { r.PasswordFile = file },
	} {
		f.say(says("-WRONGPASS invalid username-password pair\r\n"))
		set := newSet(t, redisSpec(f.address, change))
		if a := set.Redis(rated(5, 1)).Take(set.now(), 0, caller); a.Failure == ratelimit.NoFailure {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// Connections are kept; those that have died meanwhile are replaced without
// failing a question.
func TestRedisConnections(t *testing.T) {
	f := startFake(t, nil, says("*4\r\n:1\r\n:4\r\n:0\r\n:9\r\n"))
	set := newSet(t, redisSpec(f.address, nil))
	l := set.Redis(rated(5, 1))
	for range 20 {
		if a := l.Take(set.now(), 0, caller); !a.OK {
			t.Fatalf("%+v", a)
		}
	}
	if n := f.calls.Load(); n != 1 {
		t.Errorf("%d connections for questions in turn", n)
	}
	for range 10 {
		f.cut()
		if a := l.Take(set.now(), 0, caller); !a.OK {
			t.Fatalf("after a cut: %+v", a)
		}
	}
	if n := f.calls.Load(); n != 11 {
		t.Errorf("%d connections, want 11", n)
	}
	set.Use(Spec{})
	_ = l.Take(set.now(), 0, caller) // a plan may still have it
}

func TestRedisTLS(t *testing.T) {
	serverTLS, clientTLS := testkit.NewCA(t).MutualTLS()
	_, strange := testkit.NewCA(t).MutualTLS()
	f := startFake(t, func(l net.Listener) net.Listener { return tls.NewListener(l, serverTLS) }, says("*4\r\n:1\r\n:4\r\n:0\r\n:9\r\n"))
	for name, c := range map[string]*tls.Config{"as it should": clientTLS, "another authority": strange} {
		spec := redisSpec(f.address, nil)
		spec.RedisTLS, spec.RedisKey = c, name
		set := newSet(t, spec)
		if a := set.Redis(rated(5, 1)).Take(set.now(), 0, caller); a.OK != (c == clientTLS) {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// realRedis is a Redis that the test may stop.
type realRedis struct {
	t   testing.TB
	dir string
	cmd *exec.Cmd
}

var redisPorts = testkit.Ports{Low: 28000, High: 30000}

func startRedis(t testing.TB) (*realRedis, string) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		testkit.Missing(t, "redis-server is not installed")
	}
	port := redisPorts.Free(t)
	r := &realRedis{t: t, dir: t.TempDir()}
	address := fmt.Sprint("127.0.0.1:", port)
	r.start(address)
	t.Cleanup(r.stop)
	return r, address
}

func (r *realRedis) start(address string) {
	r.t.Helper()
	_, port, _ := net.SplitHostPort(address)
	r.cmd = exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", r.dir)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	for until := time.Now().Add(patience); ; wait(5 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(until) {
			r.t.Fatal("Redis does not listen")
		}
	}
}

func (r *realRedis) stop() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

func (r *realRedis) tell(address string, args ...string) redisReply {
	r.t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write(appendCommand(nil, args...))
	v, err := readReply(bufio.NewReader(c))
	if err != nil {
		r.t.Fatalf("%q: %v", args, err)
	}
	return v
}

// Two proxies share the buckets in a real Redis; what they are told is what is
// left. Scripts may be forgotten, keys of another kind are told apart from
// buckets.
func TestRealRedis(t *testing.T) {
	r, address := startRedis(t)
	one, two := newSet(t, redisSpec(address, nil)), newSet(t, redisSpec(address, nil))
	a, b := one.Redis(rated(5, 1)), two.Redis(rated(5, 1))
	for i := range 5 {
		l, set := a, one
		if i%2 == 1 {
			l, set = b, two
		}
		if i == 3 {
			r.tell(address, "SCRIPT", "FLUSH")
		}
		got := l.Take(set.now(), 0, caller)
		// A little comes back meanwhile.
		if !got.OK || got.Remaining != int64(4-i) || got.Full <= time.Duration(i)*time.Hour/5 || got.Full > time.Duration(i+1)*time.Hour/5 {
			t.Fatalf("request %d: %+v", i+1, got)
		}
	}
	for _, l := range []Limiter{a, b, a, b} {
		if got := l.Take(two.now(), 0, caller); got.OK || got.Failure != ratelimit.NoFailure || got.Wait <= 0 || got.Wait > time.Hour/5 {
			t.Errorf("beyond the rate: %+v", got)
		}
	}
	if got := a.Take(one.now(), 0, [][]byte{[]byte("another")}); !got.OK {
		t.Errorf("another caller: %+v", got)
	}
	key := DefaultRedis().Prefix + "inbound:shop:caller:5/3600000000:a"
	if n := r.tell(address, "PTTL", key).numbers; len(n) != 1 || n[0] < 1000*60*50 || n[0] > 1000*3600+1000 {
		t.Errorf("the key lives for %v ms", n)
	}
	r.tell(address, "SET", DefaultRedis().Prefix+"inbound:shop:caller:5/3600000000:odd", "something")
	if got := a.Take(one.now(), 0, [][]byte{[]byte("odd")}); got.Failure != ratelimit.Refused {
		t.Errorf("a key that is no bucket: %+v", got)
	}
	r.tell(address, "RPUSH", DefaultRedis().Prefix+"inbound:shop:caller:5/3600000000:list", "something")
	if got := a.Take(one.now(), 0, [][]byte{[]byte("list")}); got.Failure != ratelimit.Refused {
		t.Errorf("a key of another type: %+v", got)
	}
	if got := a.Take(one.now(), 0, [][]byte{[]byte("after")}); !got.OK {
		t.Errorf("after wrong keys: %+v", got)
	}
}

// The buckets in Redis fill again as they should: in a second come back as many
// requests as the rate says, and no more.
func TestRealRedisRate(t *testing.T) {
	_, address := startRedis(t)
	for _, lease := range []int{1, 10} {
		set := newSet(t, redisSpec(address, nil))
		l := set.Redis(&Limit{Name: fmt.Sprint("rate", lease), Rate: &ratelimit.Config{Requests: 200, Per: time.Second, Burst: 20}, Lease: lease, Keys: 10})
		began := set.now()
		passed := 0
		for set.now()-began < 500*time.Millisecond {
			a := l.Take(set.now(), 0, caller)
			if a.Failure != ratelimit.NoFailure {
				t.Fatalf("%+v", a)
			}
			if a.OK {
				passed++
			} else if a.Wait > 10*time.Millisecond {
				t.Fatalf("%+v", a)
			}
			wait(time.Millisecond)
		}
		took := set.now() - began
		if most := 20 + int(took.Seconds()*200) + 1 + lease - 1; passed > most || passed < 1 {
			t.Errorf("leases of %d: %d passed in %s, want at most %d", lease, passed, took, most)
		}
	}
}

// Redis is restarted under load: questions fail meanwhile, at once, and are
// answered again afterwards. The buckets begin anew.
func TestRealRedisRestarted(t *testing.T) {
	r, address := startRedis(t)
	set := newSet(t, redisSpec(address, func(c *Redis) { c.Breaker.OpenFor = 20 * time.Millisecond }))
	l := set.Redis(rated(1_000_000, 1))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var good, bad, after atomic.Int64
	var back atomic.Bool
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				switch a := l.Take(set.now(), 0, caller); {
				case a.Failure != ratelimit.NoFailure:
					bad.Add(1)
					wait(time.Millisecond)
				case back.Load():
					after.Add(1)
				default:
					good.Add(1)
				}
			}
		})
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(patience); !ok(); wait(time.Millisecond) {
			if time.Now().After(end) {
				t.Error("it does not come to ", what)
				return
			}
		}
	}
	until("answers", func() bool { return good.Load() > 100 })
	r.stop()
	until("failures", func() bool { return bad.Load() > 50 })
	r.start(address)
	back.Store(true)
	until("answers again", func() bool { return after.Load() > 100 })
	close(stop)
	wg.Wait()
	if n := set.redis.inFlight.Load(); n != 0 {
		t.Errorf("%d questions are still under way", n)
	}
}

// 10,000 callers have a bucket each.
func TestRealRedisManyKeys(t *testing.T) {
	r, address := startRedis(t)
	set := newSet(t, redisSpec(address, nil))
	l := set.Redis(rated(1, 1))
	const callers, workers = 10_000, 10
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < callers; i += workers {
				v := [][]byte{fmt.Append(nil, "caller ", i)}
				if a, b := l.Take(set.now(), 0, v), l.Take(set.now(), 0, v); !a.OK || b.OK || b.Failure != ratelimit.NoFailure {
					t.Errorf("caller %d: %+v, then %+v", i, a, b)
				}
			}
		})
	}
	wg.Wait()
	if n := r.tell(address, "DBSIZE").numbers; len(n) != 1 || n[0] != callers {
		t.Errorf("%v keys", n)
	}
}
