package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// sidecar is one "outrigger run".
type sidecar struct {
	*process
	t      *testing.T
	admin  string // http://...
	config string // the path of its configuration
	access string // the path of its access log
	conf   sections
}

// sidecar starts a sidecar for a service with conf and what every one has.
func (m *mesh) sidecar(service string, conf sections) *sidecar {
	m.t.Helper()
	s := m.prepare(service, conf)
	s.start()
	return s
}

// prepare writes the configuration of a sidecar that is not started yet.
func (m *mesh) prepare(service string, conf sections) *sidecar {
	m.t.Helper()
	m.seen++
	name := fmt.Sprintf("%s-%d", service, m.seen)
	admin := freeAddress(m.t)
	s := &sidecar{
		t: m.t, admin: "http://" + admin,
		config: filepath.Join(m.dir, name+".yaml"), access: filepath.Join(m.dir, "log", name+".access"),
	}
	// Apart from the configuration, whose folder the proxy watches.
	if err := os.MkdirAll(filepath.Join(m.dir, "log"), 0o700); err != nil {
		m.t.Fatal(err)
	}
	s.conf = sections{
		"admin":     fmt.Sprintf(`{listen: "%s"}`, admin),
		"telemetry": fmt.Sprintf(`{access_log: {path: "%s"}}`, s.access),
		"drain":     `{delay: 0s, timeout: 5s}`,
	}.with(conf)
	if _, ok := s.conf["identity"]; !ok {
		s.conf["identity"] = m.identity(service)
	}
	writeFile(m.t, s.config, s.conf.yaml())
	return s
}

// start starts the process, also again after it has ended.
func (s *sidecar) start() {
	s.t.Helper()
	s.process = spawn(s.t, filepath.Base(s.config), exec.Command(program, "run", "--config", s.config))
}

// rewrite replaces parts of the configuration; the process reads it by itself.
func (s *sidecar) rewrite(more sections) {
	s.t.Helper()
	s.conf = s.conf.with(more)
	writeFile(s.t, s.config, s.conf.yaml())
}

// adminClient keeps no connections, so that none outlives its sidecar.
var adminClient = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

// get asks the admin API. The status is 0 when it does not answer.
func (s *sidecar) get(path string) (status int, body string) {
	return s.ask(http.MethodGet, path, "", nil)
}

func (s *sidecar) ask(method, path, body string, change func(*http.Request)) (int, string) {
	req, err := http.NewRequestWithContext(context.Background(), method, s.admin+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	resp, err := adminClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// view asks for a page of the admin API as JSON.
func (s *sidecar) view(path string, v any) {
	s.t.Helper()
	status, body := s.get(path + "?format=json")
	if status != http.StatusOK {
		s.t.Fatalf("%s: %d %s", path, status, body)
	}
	if err := json.Unmarshal([]byte(body), v); err != nil {
		s.t.Fatalf("%s: %v in %s", path, err, body)
	}
}

// ready waits until the sidecar says that it may get traffic.
func (s *sidecar) ready() {
	s.t.Helper()
	eventually(s.t, patience, s.name+" is ready", func() (bool, string) {
		if !s.running() {
			s.t.Fatalf("%s has ended", s.name)
		}
		status, body := s.get("/ready")
		return status == http.StatusOK, body
	})
}

// metric is the sum of the series of a metric whose labels include all of the
// given ones, each written name="value". It is 0 when there is none.
func (s *sidecar) metric(name string, labels ...string) float64 {
	s.t.Helper()
	status, body := s.get("/metrics")
	if status != http.StatusOK {
		s.t.Fatalf("/metrics: %d %s", status, body)
	}
	sum := 0.0
lines:
	for line := range strings.Lines(body) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue lines
			}
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(strings.TrimSpace(rest), ' ')+1:]), 64)
		if err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		sum += v
	}
	return sum
}

// counts waits until a metric has at least the value.
func (s *sidecar) counts(least float64, name string, labels ...string) {
	s.t.Helper()
	eventually(s.t, patience, fmt.Sprintf("%s: %s%v is at least %v", s.name, name, labels, least), func() (bool, string) {
		v := s.metric(name, labels...)
		return v >= least, fmt.Sprintf("it is %v", v)
	})
}

// says waits until the log of the sidecar has a line with all the words.
func (s *sidecar) says(words ...string) {
	s.t.Helper()
	eventually(s.t, patience, fmt.Sprintf("%s logs %q", s.name, words), func() (bool, string) {
		return hasLine(s.out.String(), words...), ""
	})
}

func hasLine(text string, words ...string) bool {
lines:
	for line := range strings.Lines(text) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return true
	}
	return false
}

// record is a line of the access log.
type record struct {
	RequestID    string `json:"request_id"`
	TraceID      string `json:"trace_id"`
	Direction    string
	Listener     string
	Route        string
	Cluster      string
	Endpoint     string
	Method       string
	Path         string
	Protocol     string
	Authority    string
	ALPN         string
	Status       int
	Flag         string
	Reason       string
	Detail       string
	Rule         string
	BytesIn      uint64 `json:"bytes_in"`
	BytesOut     uint64 `json:"bytes_out"`
	AttemptCount int    `json:"attempt_count"`
	DownstreamID string `json:"downstream_id"`
	UpstreamID   string `json:"upstream_id"`
	LocalID      string `json:"local_id"`
	Original     string `json:"original_destination"`
	Peer         string `json:"downstream_addr"`
}

// records returns what is in the access log.
func (s *sidecar) records() []record {
	s.t.Helper()
	b, err := os.ReadFile(s.access)
	if err != nil {
		s.t.Fatal(err)
	}
	var list []record
	for line := range strings.Lines(string(b)) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			s.t.Fatalf("%s: %v in %s", s.access, err, line)
		}
		list = append(list, r)
	}
	return list
}

// recorded waits for a record that match likes and returns it.
func (s *sidecar) recorded(what string, match func(*record) bool) record {
	s.t.Helper()
	var found record
	eventually(s.t, patience, s.name+" has recorded "+what, func() (bool, string) {
		list := s.records()
		for i := range list {
			if match(&list[i]) {
				found = list[i]
				return true, ""
			}
		}
		return false, fmt.Sprintf("the last of %d records: %+v", len(list), list[max(0, len(list)-3):])
	})
	return found
}
