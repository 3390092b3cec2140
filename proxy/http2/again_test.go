package http2

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// rounds is how often a connection meets a head: the encoder enters a field the
// second time, so that the third and the fourth find it.
const rounds = 4

// A head means the same however often it has gone out before.
func TestSentHeadsAgain(t *testing.T) {
	conns := map[bool]*conn{true: detached(true), false: detached(false)}
	theirs := map[bool]*hpack.Decoder{true: hpack.NewDecoder(tableSize, nil), false: hpack.NewDecoder(tableSize, nil)}
	hits := 0
	for round := range 2 * rounds {
		for _, lines := range blocks(t, "heads.txt") {
			in, out, refused := arrow(t, lines)
			if round >= rounds { // names in lower case are not copied
				for i := range in[2:] {
					if name, value, ok := strings.Cut(in[2+i], ":"); ok {
						in[2+i] = strings.ToLower(name) + ":" + value
					}
				}
			}
			head := []byte(strings.Join(in[1:], "\r\n") + "\r\n\r\n")
			client := in[0] == "request"
			c := conns[client]
			c.pend = c.pend[:0]
			s := c.newStream()
			var err error
			if client {
				err = s.WriteRequest(head, nil, End)
			} else {
				s.id = 1
				c.streams[1] = s
				if in[0] == "answer-to-websocket" {
					s.Protocol, s.key, s.connect = []byte("websocket"), []byte(sampleKey), true
				}
				err = s.WriteResponse(head, nil, 0)
			}
			if refused != "" {
				if err == nil || err.Error() != refused {
					t.Errorf("round %d: %s: %v, want %s", round, strings.Join(in, "|"), err, refused)
				}
				continue
			}
			if err != nil {
				t.Errorf("round %d: %s: %v", round, strings.Join(in, "|"), err)
				continue
			}
			n := int(c.pend[0])<<16 | int(c.pend[1])<<8 | int(c.pend[2])
			got, err := theirs[client].DecodeFull(c.pend[frameHead : frameHead+n])
			if want := strings.Join(out, "\n") + "\n"; err != nil || fields(got).String() != want {
				t.Errorf("round %d: %s: got\n%s, %v, want\n%s", round, strings.Join(in, "|"), fields(got), err, want)
			}
			for _, l := range c.lines {
				if l.entry != 0 {
					hits++
				}
			}
		}
	}
	if hits < 40 {
		t.Errorf("%d lines were entries", hits)
	}
}

// A field section means the same when its fields come out of the dynamic table.
func TestReceivedHeadsAgain(t *testing.T) {
	hits := 0
	for _, client := range []bool{false, true} {
		c := detached(client)
		known := func(e *entry) {
			if e.plain {
				hits++
			}
			c.in.entry(e)
		}
		var block bytes.Buffer
		theirs := hpack.NewEncoder(&block)
		for round := range rounds {
			for _, lines := range blocks(t, "sections.txt") {
				in, out, refused := arrow(t, lines)
				words := strings.Fields(in[0])
				s := c.newStream()
				kind := sectionOf(words[0], s)
				if kind == sectionRequest && client || kind == sectionResponse && !client {
					continue
				}
				block.Reset()
				for _, l := range in[1:] {
					name, value, _ := strings.Cut(l[1:], ": ")
					_ = theirs.WriteField(hpack.HeaderField{Name: l[:1] + name, Value: escapes.Replace(value)})
				}
				c.in.begin(kind, s)
				if err := c.dec.section(block.Bytes(), c.emit, known); err != nil {
					t.Fatal(err)
				}
				c.in.end(slices.Contains(words, "end"))
				if c.in.malformed != refused {
					t.Errorf("round %d: %s: refused %q, want %q", round, strings.Join(in, "|"), c.in.malformed, refused)
					continue
				}
				want := strings.Join(out, "\r\n") + "\r\n"
				if kind != sectionTrailers {
					want += "\r\n"
				}
				if got := string(c.in.out); refused == "" && got != want {
					t.Errorf("round %d: %s: got\n%q, want\n%q", round, strings.Join(in, "|"), got, want)
				}
			}
		}
	}
	if hits < 50 {
		t.Errorf("%d fields were known", hits)
	}
}

// Entries count against the limits like other fields.
func TestKnownFieldsAreCounted(t *testing.T) {
	for _, x := range []struct {
		cfg  Config
		last int // how many of the fields fit
	}{
		{Config{Fields: 10}, 10 + pseudoFields},
		{Config{HeaderBytes: 400}, 400 / (len("a-field") + len("its value") + entryOverhead)},
	} {
		c := newConn(nil, &x.cfg, false)
		e := c.dec.add([]byte("a-field"), []byte("its value"))
		c.in.begin(sectionRequest, nil)
		c.in.begun = true
		for i := range 30 {
			c.in.entry(e)
			if c.in.tooLarge != (i >= x.last) {
				t.Fatalf("%+v: too large %v after %d", x.cfg, c.in.tooLarge, i+1)
			}
		}
		if n := bytes.Count(c.in.out, []byte("\n")); n != x.last {
			t.Errorf("%d lines", n)
		}
	}
}

// A table is a list whose oldest entries fall out; its memory is bounded.
func TestTable(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 2))
		tab := table{limit: tableSize}
		var list []string // the newest last
		size := 0
		fit := func(extra int) {
			for len(list) > 0 && size+extra > tab.limit {
				size -= len(list[0]) - lineExtra + entryOverhead
				list = list[1:]
			}
		}
		longest := []int{3, 50, 700, 5000}[seed%4]
		for range 1000 {
			switch k := r.IntN(100); {
			case k == 0:
				tab.setLimit(r.IntN(tableSize + 1))
				fit(0)
			case k == 1:
				b := tab.asSection()
				if len(b) > tab.size || cap(b) > len(b)+len(b)/4+16 {
					t.Fatalf("%d bytes in %d for a table of %d", len(b), cap(b), tab.size)
				}
				d := decoder{table: table{limit: tab.limit}}
				if err := d.section(b, func([]byte, []byte) {}, nil); err != nil {
					t.Fatal(err)
				}
				tab = d.table
			default:
				name := strings.Repeat("n", 1+r.IntN(longest))
				value := strings.Repeat(string(rune('a'+r.IntN(26))), r.IntN(longest))
				line := name + ": " + value + "\r\n"
				counts := len(name) + len(value) + entryOverhead
				var e *entry
				if k%2 == 0 {
					e = tab.add([]byte(name), []byte(value))
				} else {
					e = tab.addLine([]byte(line), len(name))
				}
				if fit(counts); counts <= tab.limit {
					list, size = append(list, line), size+counts
				}
				if (e == nil) != (counts > tab.limit) {
					t.Fatal(e, counts, tab.limit)
				}
			}
			if int(tab.count) != len(list) || tab.size != size {
				t.Fatalf("%d entries of %d bytes, want %d of %d", tab.count, tab.size, len(list), size)
			}
			if cap(tab.text) > mostText || len(tab.ring) > 128 {
				t.Fatalf("memory for %d bytes and %d entries", cap(tab.text), len(tab.ring))
			}
			for i := range list {
				e := tab.at(tab.last - uint32(len(list)-1-i))
				name, value := tab.fieldOf(e)
				if string(tab.lineOf(e)) != list[i] || string(name)+": "+string(value)+"\r\n" != list[i] {
					t.Fatalf("entry %d is %q, want %q", i, tab.lineOf(e), list[i])
				}
			}
		}
	}
}

// What a table holds costs no allocation in the long run.
func TestTableAllocatesNothing(t *testing.T) {
	tab := table{limit: tableSize}
	line := []byte("x-request-id: 0123456789abcdef0123456789abcdef\r\n")
	add := func() { tab.addLine(line, len("x-request-id")) }
	for range 500 {
		add()
	}
	if n := testing.AllocsPerRun(1000, add); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
