package http2

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

type fields []hpack.HeaderField

func (f fields) String() string {
	var b strings.Builder
	for _, x := range f {
		fmt.Fprintf(&b, "%s: %s\n", x.Name, x.Value)
	}
	return b.String()
}

func (d *decoder) all(b []byte) (f fields, err error) {
	err = d.section(b, func(name, value []byte) {
		f = append(f, hpack.HeaderField{Name: string(name), Value: string(value)})
	}, nil)
	return f, err
}

// The examples of RFC 7541 appendices C.3 to C.6.
func TestDecodeExamples(t *testing.T) {
	requests := []string{
		":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n",
		":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache\n",
		":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value\n",
	}
	responses := []string{
		":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n",
		":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n",
		":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\ncontent-encoding: gzip\n" +
			"set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n",
	}
	for _, x := range []struct {
		name  string
		limit int
		size  int
		in    []string
		want  []string
	}{
		{"C.3", 4096, 164, []string{
			"828684410f7777772e6578616d706c652e636f6d",
			"828684be58086e6f2d6361636865",
			"828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
		}, requests},
		{"C.4", 4096, 164, []string{
			"828684418cf1e3c2e5f23a6ba0ab90f4ff",
			"828684be5886a8eb10649cbf",
			"828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
		}, requests},
		{"C.5", 256, 215, []string{
			"4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
			"4803333037c1c0bf",
			"88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
		}, responses},
		{"C.6", 256, 215, []string{
			"488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
			"4883640effc1c0bf",
			"88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
		}, responses},
	} {
		var d decoder
		d.limit = x.limit
		for i, in := range x.in {
			b, err := hex.DecodeString(in)
			if err != nil {
				t.Fatal(err)
			}
			f, err := d.all(b)
			if err != nil || f.String() != x.want[i] {
				t.Errorf("%s.%d: %v\n%s", x.name, i+1, err, f)
			}
		}
		if d.size != x.size {
			t.Errorf("%s: the table has %d bytes, want %d", x.name, d.size, x.size)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"index 0":                         "80",
		"index behind the tables":         "be",
		"name index behind the tables":    "7e0161",
		"cut integer":                     "ff",
		"integer too long":                "ffffffffffff0f",
		"cut string":                      "40056162",
		"no value":                        "400161",
		"size update above the limit":     "3fe21f",
		"size update behind a field":      "8220",
		"three size updates":              "202020",
		"huffman: eleven bits of padding": "4001618207ff",
		"huffman: padding of zeros":       "4001618118",
		"huffman: the end-of-string code": "40016184ffffffff",
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		d := decoder{table: table{limit: tableSize}}
		if f, err := d.all(b); err == nil {
			t.Errorf("%s: taken as %q", name, f)
		}
	}
}

func TestHuffmanAgrees(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		b := make([]byte, r.IntN(40))
		for k := range b {
			b[k] = byte(r.Uint32())
		}
		if i < 256 {
			b = []byte{byte(i)}
		}
		coded := hpack.AppendHuffmanString(nil, string(b))
		got, ok := appendHuffman(nil, coded)
		if !ok || !bytes.Equal(got, b) {
			t.Fatalf("%q became %q, %v", b, got, ok)
		}
		// Any bytes: the same verdict.
		want, err := hpack.HuffmanDecodeToString(b)
		got, ok = appendHuffman(nil, b)
		if ok != (err == nil) || ok && string(got) != want {
			t.Fatalf("%x: %q %v, want %q %v", b, got, ok, want, err)
		}
	}
}

// script makes field sections of bytes.
func script(data []byte) (sections []fields) {
	names := []string{":path", ":authority", "accept", "x-request-id", "x-a", "content-type", "authorization", "cookie", "x-long", "date"}
	var f fields
	for len(data) >= 2 {
		a, b := data[0], data[1]
		data = data[2:]
		if a >= 0xf0 {
			sections = append(sections, f)
			f = nil
			continue
		}
		value := fmt.Sprintf("v%d", b)
		if a&0x40 != 0 {
			value = strings.Repeat("long value ", int(b))
		}
		f = append(f, hpack.HeaderField{Name: names[int(a)%len(names)], Value: value})
	}
	return append(sections, f)
}

// What the encoder writes, the standard decoder reads, whatever table sizes the
// peer asks for; what the standard encoder writes, the decoder reads.
func FuzzHPACK(f *testing.F) {
	f.Add([]byte("abcdefghijklmnop"), uint16(4096))
	f.Add(bytes.Repeat([]byte{0x41, 30, 1, 2, 3, 4, 0xf0, 0}, 30), uint16(300))
	f.Add(bytes.Repeat([]byte{1, 2, 1, 2, 0xf1, 1, 5, 5, 0xf2, 7}, 50), uint16(0))
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		b := make([]byte, 2000)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b, uint16(r.Uint32()))
	}
	f.Fuzz(func(t *testing.T, data []byte, size uint16) {
		var e encoder
		e.limit = tableSize
		theirs := hpack.NewDecoder(tableSize, nil)
		var coded bytes.Buffer
		they := hpack.NewEncoder(&coded)
		var d decoder
		d.limit = tableSize
		for i, want := range script(data) {
			if i%3 == 1 {
				n := uint32(size) % 5000
				if i%2 == 0 {
					n = tableSize
				}
				e.setPeerLimit(n)
				theirs.SetAllowedMaxDynamicTableSize(n)
				they.SetMaxDynamicTableSize(min(n, tableSize))
			}
			b := e.begin(nil)
			for _, x := range want {
				b = e.field(b, staticAny(x.Name), []byte(x.Name), []byte(x.Value))
			}
			got, err := theirs.DecodeFull(b)
			if err != nil || fields(got).String() != want.String() {
				t.Fatalf("section %d: %v\n%s\nwant\n%s", i, err, fields(got), want)
			}
			if e.size > e.limit || len(e.ring) > 128 {
				t.Fatalf("the table has %d bytes and %d entries", e.size, e.count)
			}
			coded.Reset()
			for _, x := range want {
				_ = they.WriteField(x)
			}
			mine, err := d.all(coded.Bytes())
			if err != nil || mine.String() != want.String() {
				t.Fatalf("section %d: %v\n%s\nwant\n%s", i, err, mine, want)
			}
		}
	})
}

func staticAny(name string) uint8 {
	switch name {
	case ":path":
		return staticPath
	case ":authority":
		return staticAuthority
	}
	return staticName([]byte(name))
}

// Any bytes are read as the standard decoder reads them.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff})
	f.Add([]byte{0x20, 0x3f, 0xe1, 0x1f, 0x40, 1, 'a', 1, 'b', 0xbe, 0x7e, 1, 'c', 0x10, 1, 'x', 0x81, 0x1f})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := decoder{table: table{limit: tableSize}}
		mine, err := d.all(b)
		want, wrong := hpack.NewDecoder(tableSize, nil).DecodeFull(b)
		if err == nil && wrong == nil && mine.String() != fields(want).String() {
			t.Fatalf("%x:\n%s\nwant\n%s", b, mine, fields(want))
		}
		// This one takes shorter integers only, and not so many size updates.
		if err == nil && wrong != nil {
			t.Fatalf("%x: taken, but %v", b, wrong)
		}
	})
}

func TestStaticNames(t *testing.T) {
	for i := uint8(15); i <= staticEntries; i++ {
		if n := static[i].name; n != "host" && n != "transfer-encoding" && staticName([]byte(n)) != i {
			t.Errorf("%s is %d, want %d", n, staticName([]byte(n)), i)
		}
	}
}

// Values that never come again must not push out those that do.
func TestEncoderKeepsWhatRepeats(t *testing.T) {
	var e encoder
	e.limit = tableSize
	size := 0
	for i := range 300 {
		b := e.field(e.begin(nil), 58, []byte("user-agent"), []byte("a client with a long name, 1.0"))
		b = e.field(b, 0, []byte("x-request-id"), fmt.Appendf(nil, "%032d", i))
		b = e.field(b, staticAuthorization, []byte("authorization"), []byte("secret"))
		size = len(b)
	}
	// One byte; one or two for the name and 33 for the value; nine for the secret.
	if size > 1+2+33+9 {
		t.Errorf("a section takes %d bytes", size)
	}
	for n := range e.count {
		if strings.Contains(string(e.lineOf(e.at(e.last-n))), "secret") {
			t.Error("a secret was indexed")
		}
	}
}
