package telemetry

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSplitMethod(t *testing.T) {
	for path, want := range map[string]string{
		"/a.b.C/Do": "a.b.C Do", "/c/d": "c d", "/a_b-1.C/D_2": "a_b-1.C D_2",
		"": "", "/": "", "a/b": "", "/a": "", "//b": "", "/a/": "", "/a/b/c": "", "/a/b?x": "", "/a b/c": "", "/a/é": "", "/a/\"": "",
		"/" + strings.Repeat("s", maxMethodName) + "/m": "",
	} {
		got := ""
		if s, n, ok := splitMethod([]byte(path)); ok {
			got = string(s) + " " + string(n)
		}
		if got != want {
			t.Errorf("%q is %q, want %q", path, got, want)
		}
	}
}

// TestMethodCalls: what is counted where. A method that no endpoint has answered,
// or that is not there, gets no series of its own.
func TestMethodCalls(t *testing.T) {
	m := newMetrics(t, 0)
	c := m.Cluster("api", Inbound)
	call := func(path string, status uint8, answered bool) {
		c.Call(7, []byte(path), status, answered, time.Millisecond)
	}
	call("/s/Early", 14, false)
	call("/s/Do", 0, true)
	call("/s/Do", 0, true)
	call("/s/Do", 14, false)
	call("/s/Do", 200, true)
	call("/s/Missing", unimplemented, true)
	call("/s/Do", unimplemented, true)
	call("no method", 0, true)
	labels := func(service, method, status string) string {
		return `{cluster="api",direction="inbound",grpc_status="` + status + `",method="` + method + `",service="` + service + `"} `
	}
	wantLines(t, m, "outrigger_grpc_calls_total",
		labels("_other_", "_other_", "0")+"1", labels("_other_", "_other_", "12")+"1", labels("_other_", "_other_", "14")+"1",
		labels("s", "Do", "0")+"2", labels("s", "Do", "12")+"1", labels("s", "Do", "14")+"1", labels("s", "Do", "other")+"1")
	wantLines(t, m, "outrigger_grpc_call_duration_seconds_count",
		`{cluster="api",direction="inbound",method="Do",service="s"} 5`,
		`{cluster="api",direction="inbound",method="_other_",service="_other_"} 3`)
	c.Release()
	wantLines(t, m, "outrigger_grpc_calls_total")
}

// TestMethodsAreBounded: no more methods than there is room for, whoever comes.
func TestMethodsAreBounded(t *testing.T) {
	m := newMetrics(t, 0)
	c := m.Cluster("api", Inbound)
	const more, callers = 10, 4
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := range maxMethods + more {
				c.Call(0, fmt.Appendf(nil, "/s/m%d", i), 0, true, time.Millisecond)
			}
		})
	}
	wg.Wait()
	series, calls, others := 0, 0, 0
	for _, line := range lines(t, m, "outrigger_grpc_calls_total") {
		var n int
		_, _ = fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
		series, calls = series+1, calls+n
		if strings.Contains(line, methodOthers) {
			others += n
		} else if n != callers {
			t.Errorf("%s, want %d", line, callers)
		}
	}
	if series != maxMethods+1 || others != more*callers || calls != (maxMethods+more)*callers {
		t.Errorf("%d series, %d calls of which %d are of others", series, calls, others)
	}
}
