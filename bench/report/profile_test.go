package report

import (
	"math"
	"strings"
	"testing"
)

// exampleStacks are stacks of a Go proxy, each with the part that it belongs to
// as its label in stackParts.
func exampleStacks() []Stack {
	var list []Stack
	for i, s := range stackParts {
		list = append(list, Stack{Value: float64(10 * (i + 1)), Functions: strings.Fields(s.stack)})
	}
	return list
}

var stackParts = []struct{ stack, part string }{
	{"internal/runtime/syscall/linux.Syscall6 syscall.RawSyscall6 syscall.write internal/poll.(*FD).Write net.(*conn).Write", partSockets},
	{"internal/runtime/syscall/linux.Syscall6 syscall.RawSyscall6 golang.org/x/sys/unix.Splice github.com/outrigger-mesh/outrigger/proxy/relay.(*pipe).move", partSockets},
	{"internal/runtime/syscall/linux.Syscall6 internal/runtime/syscall/linux.EpollWait runtime.netpoll runtime.findRunnable", partPoll},
	{"runtime.futex runtime.futexwakeup runtime.notewakeup", partThreads},
	{"internal/runtime/syscall/linux.Syscall6 syscall.RawSyscall6 syscall.accept4 net.(*netFD).accept", partKernel},
	{"crypto/internal/fips140/aes/gcm.gcmAesEnc crypto/tls.(*halfConn).encrypt github.com/outrigger-mesh/outrigger/mtls.(*Conn).Write", partTLS},
	{"runtime.memmove crypto/tls.(*Conn).Read", partTLS},
	{"runtime.nextFreeFast runtime.mallocgcSmallNoscan runtime.mallocgc github.com/outrigger-mesh/outrigger/proxy/http2.(*conn).open", partMemory},
	{"runtime.scanobject runtime.gcDrain runtime.gcBgMarkWorker", partMemory},
	{"runtime.memmove github.com/outrigger-mesh/outrigger/proxy/wire.(*Buffer).Write", partCopy},
	{"runtime.findRunnable runtime.schedule runtime.mcall", partRuntime},
	{"internal/runtime/maps.(*Iter).Next github.com/outrigger-mesh/outrigger/proxy/http2.(*conn).run", partRuntime},
	{"github.com/outrigger-mesh/outrigger/proxy/http2.(*conn).read github.com/outrigger-mesh/outrigger/proxy/listener.serve", partOwn},
	{"bytes.IndexByte github.com/outrigger-mesh/outrigger/telemetry.unhex", partOwn},
	{"log/slog.(*Logger).Info main.main", partLibrary},
}

func TestProfileParts(t *testing.T) {
	for _, s := range stackParts {
		if got := partOf(strings.Fields(s.stack)); got != s.part {
			t.Errorf("%s: %s, want %s", s.stack, got, s.part)
		}
	}
	stacks := append(exampleStacks(), Stack{Value: 99}) // a stack without a function counts for nothing
	p := NewProfile(H2, 64, 8, stacks)
	sum, all := 0.0, 0.0
	for _, part := range p.Parts {
		sum += part.Percent
	}
	for i := range stackParts {
		all += float64(10 * (i + 1))
	}
	if math.Abs(sum-100) > 0.1 || p.CPUMS != all {
		t.Errorf("%v %% of %v ms: %+v", sum, p.CPUMS, p.Parts)
	}
	if len(p.Packages) != 2 || p.Packages[0].Name != "telemetry" || p.Packages[1].Name != "proxy/http2" {
		t.Errorf("%+v", p.Packages)
	}
	if p.Functions[0].Name != "runtime.memmove" || p.Functions[0].Percent != round(100*(70+100)/all) {
		t.Errorf("%+v", p.Functions[0])
	}
	text := string(p.Text())
	if !strings.HasPrefix(text, "HTTP/2, 8 × 8: 1200 ms") || !strings.Contains(text, "runtime.futex\n") || !strings.Contains(text, partTLS+"\n") {
		t.Errorf("%s", text)
	}
	if NewProfile(H2, 1, 0, nil) != nil {
		t.Error("a profile of nothing")
	}
}

func TestAbsent(t *testing.T) {
	r := example()
	var b strings.Builder
	r.absent(&b, TCP)
	if got, want := b.String(), "\nNot in the table:\n\n- nghttpx, caddy: relays no TCP\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b.Reset()
	r.absent(&b, Endpoints)
	if got := b.String(); !strings.Contains(got, "- traefik: endpoints-10000: not ready within 15s\n") {
		t.Errorf("a family: %q", got)
	}
	b.Reset()
	if r.absent(&b, Latency); b.Len() > 0 {
		t.Errorf("nobody is missing: %q", b.String())
	}
}

// TestGlance holds that every figure of the run is in the one table, with the
// least in bold.
func TestGlance(t *testing.T) {
	var b strings.Builder
	example().glance(&b)
	for _, want := range []string{
		"| | outrigger | haproxy | haproxy-h2 | nginx | envoy | nghttpx | reverseproxy |",
		"| HTTP/1.1 plain, 64 | **29.0** | – | – | 51.0 | – | – | 151 |",
		"| gRPC over the mesh hop, 8 × 8 | **14.0** | – | 25.0 |",
		"| Bodies, 100 KB | **90.0** |",
		"| Latency at a fixed rate, p99.9 |",
		"| Memory of idle connections | 5.50 | – | – | **0.90** |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "direct") {
		t.Error("the connection without a proxy has a column")
	}
}
