package orca

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	long := "TEXT rps_fractional=1,cpu_utilization=0.5,named_metrics.a=" + strings.Repeat("x", maxReport)
	tests := []struct {
		value string
		want  Report
		ok    bool
	}{
		{"TEXT cpu_utilization=0.3,mem_utilization=0.8,rps_fractional=10.5,eps=1", Report{CPU: 0.3, RPS: 10.5, EPS: 1}, true},
		{"TEXT cpu_utilization: 0.3, application_utilization: 1.5, rps: 7", Report{CPU: 0.3, Application: 1.5, RPS: 7}, true},
		{"TEXT rps=7,rps_fractional=6.5", Report{RPS: 6.5}, true},
		{"TEXT rps_fractional=6.5,rps=7", Report{RPS: 6.5}, true},
		{"TEXT rps=7,rps_fractional=0", Report{RPS: 7}, true},
		{"TEXT named_metrics.queue=ten,cpu_utilization=1e-1", Report{CPU: 0.1}, true},
		{"TEXT cpu_utilization=0", Report{}, true},
		{"TEXT ", Report{}, false},
		{"TEXT", Report{}, false},
		{"TEXT cpu_utilization", Report{}, false},
		{"TEXT cpu_utilization=", Report{}, false},
		{"TEXT =1", Report{}, false},
		{"TEXT cpu_utilization=0.3,", Report{}, false},
		{"TEXT cpu_utilization=-0.3", Report{}, false},
		{"TEXT cpu_utilization=NaN", Report{}, false},
		{"TEXT cpu_utilization=Inf", Report{}, false},
		{"TEXT cpu_utilization=0x1p3", Report{}, false},
		{"TEXT cpu_utilization=1_0", Report{}, false},
		{"TEXT cpu_utilization=1e400", Report{}, false},
		{"TEXT cpu_utilization=" + strings.Repeat("1", 40), Report{}, false},
		{"text cpu_utilization=1", Report{}, false},
		{"", Report{}, false},
		{long, Report{}, false},
		{`JSON {"cpu_utilization": 0.3, "rps_fractional": 10, "eps": 0.5, "utilization": {"a": [1, {"b": null}]}}`, Report{CPU: 0.3, RPS: 10, EPS: 0.5}, true},
		{`JSON {"cpuUtilization":0.3,"applicationUtilization":"0.7","rps":"12","x":"a\"}"}`, Report{CPU: 0.3, Application: 0.7, RPS: 12}, true},
		{`JSON {"utilization":{"cpu_utilization":3}}`, Report{}, true},
		{`JSON {}`, Report{}, true},
		{`JSON  { } `, Report{}, true},
		{`JSON {"cpu_utilization": 0.3}{}`, Report{}, false},
		{`JSON {"cpu_utilization": 0.3,}`, Report{}, false},
		{`JSON {"cpu_utilization": 00.3}`, Report{}, false},
		{`JSON {"cpu_utilization": -1}`, Report{}, false},
		{`JSON {"cpu_utilization": "many"}`, Report{}, false},
		{`JSON {"cpu_utilization": {}}`, Report{}, false},
		{`JSON {"a": "\x"}`, Report{}, false},
		{`JSON {"a": tru}`, Report{}, false},
		{`JSON {"a": [1,]}`, Report{}, false},
		{`JSON {"a": "`, Report{}, false},
		{`JSON [1]`, Report{}, false},
		{`JSON {"a": ` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`, Report{}, false},
		{"BIN " + encode(doubles(fieldCPU, 0.3, fieldFractional, 4)), Report{CPU: 0.3, RPS: 4}, true},
		{"BIN !", Report{}, false},
	}
	for _, c := range tests {
		got, ok := Parse([]byte(c.value))
		if got != c.want || ok != c.ok {
			t.Errorf("%.80q: %+v, %v; want %+v, %v", c.value, got, ok, c.want, c.ok)
		}
	}
}

// doubles makes a message of pairs of field number and value.
func doubles(pairs ...float64) (b []byte) {
	for i := 0; i < len(pairs); i += 2 {
		b = binary.AppendUvarint(b, uint64(pairs[i])<<3|wireI64)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(pairs[i+1]))
	}
	return b
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func TestParseBin(t *testing.T) {
	all := doubles(fieldCPU, 0.25, 2, 0.9, fieldFractional, 100.5, fieldEPS, 2, fieldApplication, 0.75)
	want := Report{CPU: 0.25, Application: 0.75, RPS: 100.5, EPS: 2}
	others := append([]byte{4<<3 | wireLen, 3, 1, 2, 3, 12<<3 | wireI32, 0, 0, 0, 0}, all...)
	tests := []struct {
		name string
		b    []byte
		want Report
		ok   bool
	}{
		{"empty", nil, Report{}, true},
		{"all", all, want, true},
		{"others between", others, want, true},
		{"deprecated rps", append([]byte{fieldRPS<<3 | wireVarint, 200, 1}, doubles(fieldCPU, 0.5)...), Report{CPU: 0.5, RPS: 200}, true},
		{"both rps", append([]byte{fieldRPS<<3 | wireVarint, 200, 1}, doubles(fieldFractional, 3)...), Report{RPS: 3}, true},
		{"last one counts", doubles(fieldCPU, 1, fieldCPU, 2), Report{CPU: 2}, true},
		{"cut off", all[:len(all)-1], Report{}, false},
		{"length beyond the end", []byte{4<<3 | wireLen, 200, 200, 1, 0}, Report{}, false},
		{"endless varint", []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, Report{}, false},
		{"field 0", []byte{wireVarint, 1}, Report{}, false},
		{"a group", []byte{5<<3 | 3}, Report{}, false},
		{"negative", doubles(fieldCPU, -1), Report{}, false},
		{"no number", doubles(fieldEPS, math.NaN()), Report{}, false},
		{"infinite", doubles(fieldFractional, math.Inf(1)), Report{}, false},
	}
	for _, c := range tests {
		for _, coding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
			got, ok := ParseBin([]byte(coding.EncodeToString(c.b)))
			if ok != c.ok || ok && got != c.want {
				t.Errorf("%s: %+v, %v; want %+v, %v", c.name, got, ok, c.want, c.ok)
			}
		}
	}
	if _, ok := ParseBin([]byte(encode(make([]byte, maxReport)))); ok {
		t.Error("a report that is too long was read")
	}
}

// FuzzParse: what is taken is sane, and JSON that is taken is JSON.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"TEXT cpu_utilization=0.3,rps_fractional=1", `JSON {"cpu_utilization":0.3,"a":[{"b":"\u00e4"},true]}`, "JSON {",
		"BIN " + encode(doubles(fieldCPU, 0.3)), encode(doubles(fieldFractional, 3, fieldEPS, 1)), "TEXT a=1,=", `JSON {"rps":"7"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(r Report, ok bool) {
			for _, v := range []float64{r.CPU, r.Application, r.RPS, r.EPS, r.Weight(1)} {
				if !(v >= 0) || math.IsInf(v, 0) {
					t.Fatalf("%q: %+v", b, r)
				}
			}
			if !ok && r != (Report{}) {
				t.Fatalf("%q was refused, but left %+v", b, r)
			}
		}
		r, ok := Parse(b)
		check(r, ok)
		if text, is := strings.CutPrefix(string(b), "JSON "); is && ok && !json.Valid([]byte(text)) {
			t.Fatalf("%q is no JSON", text)
		}
		check(ParseBin(b))
	})
}

func TestParseAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	bin := []byte(encode(doubles(fieldCPU, 0.3, fieldFractional, 100, fieldEPS, 1)))
	var backend Backend
	cfg := Default()
	for _, s := range []string{
		"TEXT cpu_utilization=0.3,rps_fractional=123.25,eps=1.5", `JSON {"cpu_utilization":0.3,"rps_fractional":123.25,"x":{"y":[1]}}`,
		"BIN " + string(bin), "TEXT cpu_utilization=ten", "TEXT cpu_utilization=1e999", "JSON {", "BIN ?", "none",
	} {
		b := []byte(s)
		if n := testing.AllocsPerRun(100, func() {
			r, _ := Parse(b)
			backend.Observe(&cfg, 1, &r)
			_, _ = ParseBin(bin)
		}); n != 0 {
			t.Errorf("%q: %v allocations", s, n)
		}
	}
}
