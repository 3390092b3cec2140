package limiter

import (
	"bytes"
	"encoding/hex"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

// A question is the bytes that protobuf says it is.
func TestQuestion(t *testing.T) {
	q := question{
		domain: "shop", keys: []string{"a", "b"}, values: [][]byte{[]byte("1"), nil},
		rate: override{requests: 300, unit: 2}, hits: 5,
	}
	want := "0a0473686f70" + // domain
		"1216" + // the descriptor
		"0a060a0161120131" + "0a050a01621200" + // its entries
		"120508ac021002" + // its limit: 300 a minute
		"1805" // hits_addend
	if got := hex.EncodeToString(q.append(nil)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// What a value is told as is bounded and UTF-8, and as it is where it can be.
func TestValueText(t *testing.T) {
	for _, v := range []string{"", "spiffe://example.org/a", strings.Repeat("x", maxValue), "gr\xfc\xdfe", strings.Repeat("y", maxValue+1)} {
		got := string(valueText([]byte(v)))
		if !utf8.ValidString(got) || len(got) > 3*maxValue {
			t.Errorf("%q is told as %q", v, got)
		}
		if kept := utf8.ValidString(v) && len(v) <= maxValue; kept != (got == v) {
			t.Errorf("%q is told as %q", v, got)
		}
	}
	a, b := valueText([]byte(strings.Repeat("z", 600)+"a")), valueText([]byte(strings.Repeat("z", 600)+"b"))
	if bytes.Equal(a, b) {
		t.Error("long values that differ are told alike")
	}
}

func TestOverride(t *testing.T) {
	for _, c := range []struct {
		rate ratelimit.Config
		unit uint32
	}{
		{ratelimit.Config{Requests: 5, Per: time.Second}, 1},
		{ratelimit.Config{Requests: 5, Per: time.Minute}, 2},
		{ratelimit.Config{Requests: 5, Per: time.Hour}, 3},
		{ratelimit.Config{Requests: 5, Per: 2 * time.Second}, 0},
		{ratelimit.Config{Requests: 5, Per: time.Second, Burst: 9}, 0},
	} {
		o, ok := overrideOf(&c.rate)
		if ok != (c.unit != 0) || ok && (o.unit != c.unit || o.requests != 5) || (CanOverride(&c.rate) == "") != ok {
			t.Errorf("%+v: %+v, %v, %q", c.rate, o, ok, CanOverride(&c.rate))
		}
	}
}

// response builds a RateLimitResponse.
type response struct{ b []byte }

func (r *response) code(n uint64) *response { r.b = appendNumber(r.b, 1, n); return r }

func (r *response) status(code, requests, unit, remaining uint64, reset *[2]int64) *response {
	var s, in []byte
	s = appendNumber(s, 1, code)
	in = appendNumber(in, 1, requests)
	in = appendNumber(in, 2, unit)
	s = appendText(s, 2, in)
	s = appendNumber(s, 3, remaining)
	if reset != nil {
		in = appendNumber(nil, 1, uint64(reset[0]))
		in = appendNumber(in, 2, uint64(reset[1]))
		s = appendText(s, 4, in)
	}
	r.b = appendText(r.b, 2, s)
	return r
}

func (r *response) header(name, value string) *response {
	h := appendText(nil, 1, []byte(name))
	r.b = appendText(r.b, 3, appendText(h, 2, []byte(value)))
	return r
}

func TestReply(t *testing.T) {
	reset := func(s, n int64) *[2]int64 { return &[2]int64{s, n} }
	type want struct {
		ok, partial     bool
		requests        int64
		per, wait       time.Duration
		remaining       int64
		fields, failure string
	}
	for name, c := range map[string]struct {
		res  response
		want want
	}{
		"ok": {
			*new(response).code(1).status(1, 60, 2, 59, reset(30, 5e8)),
			want{ok: true, requests: 60, per: time.Minute, remaining: 59, wait: 30500 * time.Millisecond},
		},
		"over": {
			*new(response).code(2).status(2, 5, 1, 0, reset(1, 0)),
			want{requests: 5, per: time.Second, wait: time.Second},
		},
		"no limit":         {*new(response).code(1).status(1, 0, 0, 0, nil), want{ok: true, partial: true}},
		"nothing but ok":   {*new(response).code(1), want{ok: true, partial: true}},
		"nothing but over": {*new(response).code(2), want{partial: true}},
		"an empty message": {response{}, want{failure: errCode.Error()}},
		"an unknown code":  {*new(response).code(7).status(7, 1, 1, 1, reset(1, 1)), want{failure: errCode.Error()}},
		"a huge code":      {*new(response).code(math.MaxUint64), want{failure: errCode.Error()}},
		"ok, but its descriptor is over": {
			*new(response).code(1).status(2, 5, 1, 0, reset(9, 0)), want{ok: true, partial: true},
		},
		"over, but its descriptor is ok": {
			*new(response).code(2).status(1, 5, 1, 3, reset(9, 0)), want{partial: true},
		},
		"more statuses than descriptors": {
			*new(response).code(1).status(1, 5, 1, 3, reset(9, 0)).status(1, 5, 1, 3, reset(9, 0)), want{ok: true, partial: true},
		},
		"over with some left":                {*new(response).code(2).status(2, 5, 1, 99, reset(1, 0)), want{requests: 5, per: time.Second, wait: time.Second}},
		"a negative duration":                {*new(response).code(2).status(2, 5, 1, 0, reset(-5, 0)), want{requests: 5, per: time.Second}},
		"negative nanoseconds":               {*new(response).code(2).status(2, 5, 1, 0, reset(5, -5)), want{requests: 5, per: time.Second}},
		"an endless duration":                {*new(response).code(2).status(2, 5, 1, 0, reset(math.MaxInt64, math.MaxInt64)), want{requests: 5, per: time.Second, wait: ratelimit.MaxWait}},
		"too many nanoseconds":               {*new(response).code(2).status(2, 5, 1, 0, reset(1, math.MaxInt64)), want{requests: 5, per: time.Second, wait: 2*time.Second - 1}},
		"a month, whose length nobody knows": {*new(response).code(1).status(1, 5, 5, 4, reset(1, 0)), want{ok: true, requests: 5, remaining: 4, wait: time.Second}},
		"a unit nobody knows":                {*new(response).code(1).status(1, 5, 999, 4, reset(1, 0)), want{ok: true, requests: 5, remaining: 4, wait: time.Second}},
		"fields": {
			*new(response).code(2).header("X-Why", " too much ").header("x-empty", ""), want{partial: true, fields: "\r\nx-why: too much\r\nx-empty: "},
		},
		"fields that must not be": {
			*new(response).code(2).header("Content-Length", "5").header("x: y", "").header("", "").header("x-a", "a\r\nset-cookie: b").
				header("x-b", "\x00").header("Transfer-Encoding", "chunked").header(":status", "200").header("RateLimit", "x"),
			want{partial: true},
		},
	} {
		var r reply
		if err := r.parse(c.res.b); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		a, err := r.answer()
		got := want{ok: a.OK, partial: a.Partial, requests: a.Policy.Requests, per: a.Policy.Per, wait: a.Wait, remaining: a.Remaining, fields: string(a.Fields)}
		if err != nil {
			got = want{failure: err.Error()}
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// A message that is cut off anywhere is refused or read as what is there, and
// never read beyond its end.
func TestReplyTruncated(t *testing.T) {
	full := new(response).code(1).status(1, 60, 2, 59, &[2]int64{30, 5}).header("x-a", "b").b
	for n := range full {
		var r reply
		_ = r.parse(full[:n:n])
	}
	for _, b := range []string{"\x08", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x0b", "\x00\x01", "\x0d\x01", "\x09\x01", "\xff"} {
		var r reply
		if err := r.parse([]byte(b)); err == nil {
			t.Errorf("%q was read", b)
		}
	}
	var r reply
	if err := r.parse([]byte("\x7d1234\x79\x31\x32\x33\x34\x35\x36\x37\x38\x08\x01")); err != nil || r.code != 1 {
		t.Errorf("behind unknown fields of fixed length: %v, %+v", err, r)
	}
}

func FuzzReply(f *testing.F) {
	f.Add(new(response).code(1).status(1, 60, 2, 59, &[2]int64{30, 5}).header("x-a", "b").b)
	f.Add(new(response).code(2).status(2, 60, 2, 0, &[2]int64{-30, -5}).header("X", "\r\n").b)
	f.Add([]byte("\x0a\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r reply
		if r.parse(b) != nil {
			return
		}
		a, err := r.answer()
		if err != nil {
			return
		}
		if a.Wait < 0 || a.Wait > ratelimit.MaxWait || a.Remaining < 0 || a.Policy.Requests < 0 || len(a.Fields) > maxFieldBytes+8*maxFields {
			t.Errorf("%+v", a)
		}
		rest := a.Fields
		for len(rest) > 0 {
			if !bytes.HasPrefix(rest, []byte("\r\n")) {
				t.Fatalf("fields %q", a.Fields)
			}
			line, after, _ := bytes.Cut(rest[2:], []byte("\r\n"))
			if rest = nil; len(after) > 0 {
				rest = append([]byte("\r\n"), after...)
			}
			if name, _, ok := bytes.Cut(line, []byte(": ")); !ok || len(name) == 0 || bytes.ContainsAny(line, "\r\n\x00") {
				t.Fatalf("line %q", line)
			}
		}
	})
}
