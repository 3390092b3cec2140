package http1

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

var update = flag.Bool("update", false, "rewrite the results in testdata from what the code does")

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// corpus is a file of cases: a line with a quoted input, then a line with a tab
// and what must come of it. Empty lines and lines from '#' are for the reader.
func corpus(t *testing.T, name string, run func(in []byte) string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	sc := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		if line == "" || line[0] == '#' {
			fmt.Fprintln(&out, line)
			continue
		}
		if line[0] == '\t' {
			continue // rewritten
		}
		in, err := strconv.Unquote(line)
		if err != nil {
			t.Fatalf("%s:%d: %v", path, n, err)
		}
		got := run([]byte(in))
		fmt.Fprintf(&out, "%s\n\t%s\n", line, got)
	}
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want := strings.Split(string(data), "\n")
	for i, got := range strings.Split(out.String(), "\n") {
		if i >= len(want) || got != want[i] {
			t.Errorf("%s:%d:\n got %s\nwant %s", path, i+1, got, at(want, i))
			if i > 0 && strings.HasPrefix(got, "\t") {
				t.Logf("input %s", want[i-1])
			}
		}
	}
}

func at(s []string, i int) string {
	if i < len(s) {
		return s[i]
	}
	return "(end of file)"
}

// corpusInputs returns the inputs of a corpus, as seeds.
func corpusInputs(f *testing.F, name string) (all [][]byte) {
	f.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if line[0] == '"' {
			in, err := strconv.Unquote(strings.TrimSpace(line))
			if err != nil {
				f.Fatal(err)
			}
			all = append(all, []byte(in))
		}
	}
	return all
}

func describeRequest(in []byte) string {
	var r Request
	n, err := r.Parse(in, nil)
	if err != nil {
		return fmt.Sprintf("%d %s", Status(err), Reason(err))
	}
	if n == 0 {
		return "incomplete"
	}
	forms := [...]string{"origin", "absolute", "asterisk", "authority"}
	s := fmt.Sprintf("%s %s path=%q", r.MethodSpan.Of(in), forms[r.Form], r.Path.Of(in))
	if r.Query.Len() > 0 {
		s += fmt.Sprintf(" query=%q", r.Query.Of(in))
	}
	if r.HasHost {
		s += fmt.Sprintf(" host=%q", r.Host.Of(in))
	}
	s += fmt.Sprintf(" 1.%d %v", r.Minor, r.Framing)
	if r.Framing == FramingLength {
		s += fmt.Sprintf("(%d)", r.Length)
	}
	s += flags(r.KeepAlive, "keep", r.ExpectContinue, "expect", r.TrailersTE, "trailers", r.Upgrade, "upgrade="+string(r.UpgradeProto.Of(in)))
	if n < len(in) {
		s += fmt.Sprintf(" rest=%d", len(in)-n)
	}
	return s + " -> " + strconv.Quote(string(r.AppendHead(nil, in)))
}

func describeResponse(in []byte, m Method) string {
	var r Response
	n, err := r.Parse(in, nil, m)
	if err != nil {
		return Reason(err)
	}
	if n == 0 {
		return "incomplete"
	}
	s := fmt.Sprintf("%d %q 1.%d %v", r.Status, r.Reason.Of(in), r.Minor, r.Framing)
	if r.Framing == FramingLength {
		s += fmt.Sprintf("(%d)", r.Length)
	}
	s += flags(r.KeepAlive, "keep", r.Interim, "interim", r.Upgrade, "upgrade="+string(r.UpgradeProto.Of(in)))
	if n < len(in) {
		s += fmt.Sprintf(" rest=%d", len(in)-n)
	}
	return s + " -> " + strconv.Quote(string(r.AppendHead(nil, in)))
}

func flags(pairs ...any) (s string) {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i].(bool) {
			s += " " + pairs[i+1].(string)
		}
	}
	return s
}

func describeChunks(in []byte) string {
	var c ChunkReader
	var body []byte
	rest := in
	for {
		n, data, done, err := c.Next(rest)
		if err != nil {
			return fmt.Sprintf("%d %s", Status(err), Reason(err))
		}
		body = append(body, data...)
		rest = rest[n:]
		if done {
			s := fmt.Sprintf("%q", body)
			if t := c.Trailers(); len(t) > 0 {
				s += fmt.Sprintf(" trailers=%q", t)
			}
			if len(rest) > 0 {
				s += fmt.Sprintf(" rest=%d", len(rest))
			}
			return s
		}
		if len(rest) == 0 {
			return fmt.Sprintf("%q incomplete", body)
		}
	}
}

func TestRequestCorpus(t *testing.T) { corpus(t, "requests.txt", describeRequest) }

func TestMalformedRequestCorpus(t *testing.T) { corpus(t, "malformed.txt", describeRequest) }

func TestResponseCorpus(t *testing.T) {
	corpus(t, "responses.txt", func(in []byte) string { return describeResponse(in, MethodGet) })
}

func TestResponseToHeadCorpus(t *testing.T) {
	corpus(t, "responses_head.txt", func(in []byte) string { return describeResponse(in, MethodHead) })
}

func TestResponseToConnectCorpus(t *testing.T) {
	corpus(t, "responses_connect.txt", func(in []byte) string { return describeResponse(in, MethodConnect) })
}

func TestChunkCorpus(t *testing.T) { corpus(t, "chunks.txt", describeChunks) }
