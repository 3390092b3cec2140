package h2

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestReader cuts frames written by another implementation at every place.
func TestReader(t *testing.T) {
	var wire bytes.Buffer
	fr := http2.NewFramer(&wire, nil)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 70000}))
	check(fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte("block"), EndHeaders: true, PadLength: 4, Priority: http2.PriorityParam{Weight: 9, StreamDep: 1}}))
	check(fr.WriteDataPadded(3, true, []byte("body"), []byte{0, 0}))
	check(fr.WriteWindowUpdate(0, 12345))
	check(fr.WriteGoAway(7, http2.ErrCodeNo, nil))
	want := []string{"4/0 window=70000", "1/3 block end=false", "0/3 body end=true", "8/0 12345", "7/0 7"}
	for step := 1; step <= wire.Len(); step++ {
		var r Reader
		var got []string
		for in := wire.Bytes(); len(in) > 0; {
			n := min(step, len(in))
			err := r.Feed(in[:n], func(f *Frame) error {
				text := fmt.Sprintf("%d/%d ", f.Type, f.Stream)
				switch f.Type {
				case TypeSettings:
					check(f.Settings(func(s Setting) { text += fmt.Sprintf("window=%d", s.Value) }))
				case TypeData, TypeHeaders:
					c, err := f.Content()
					check(err)
					text += fmt.Sprintf("%s end=%v", c, f.Has(FlagEndStream))
				default:
					n, err := f.Uint32()
					check(err)
					text += fmt.Sprint(n)
				}
				got = append(got, text)
				return nil
			})
			check(err)
			in = in[n:]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("step %d: %q", step, got)
		}
	}
}

func TestBrokenFrames(t *testing.T) {
	var r Reader
	if err := r.Feed(AppendHead(nil, MaxFrame+1, TypeData, 0, 1), nil); err == nil {
		t.Error("a frame too long was taken")
	}
	for _, f := range []Frame{
		{Type: TypeData, Flags: FlagPadded},
		{Type: TypeData, Flags: FlagPadded, Payload: []byte{3, 'x'}},
		{Type: TypeHeaders, Flags: FlagPriority, Payload: []byte("1234")},
	} {
		if c, err := f.Content(); err == nil {
			t.Errorf("%+v: %q", f, c)
		}
	}
	if _, err := (&Frame{Payload: []byte("123")}).Uint32(); err == nil {
		t.Error("a short number was taken")
	}
	if err := (&Frame{Payload: []byte("12345")}).Settings(func(Setting) {}); err == nil {
		t.Error("short settings were taken")
	}
}

// TestWritten reads our frames with another implementation.
func TestWritten(t *testing.T) {
	b := AppendSettings(nil, Setting{SettingPush, 0}, Setting{SettingMaxStreams, 100})
	b = AppendWindowUpdate(b, 5, 99)
	b = AppendFrame(b, TypeData, FlagEndStream, 5, []byte("hello"))
	fr := http2.NewFramer(nil, bytes.NewReader(b))
	s, err := fr.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := s.(*http2.SettingsFrame).Value(http2.SettingMaxConcurrentStreams); !ok || v != 100 {
		t.Errorf("settings %v", s)
	}
	w, err := fr.ReadFrame()
	if err != nil || w.(*http2.WindowUpdateFrame).Increment != 99 || w.Header().StreamID != 5 {
		t.Errorf("window update %v, %v", w, err)
	}
	d, err := fr.ReadFrame()
	if err != nil || string(d.(*http2.DataFrame).Data()) != "hello" || !d.(*http2.DataFrame).StreamEnded() {
		t.Errorf("data %v, %v", d, err)
	}
}

func fields(pairs ...string) []hpack.HeaderField {
	var list []hpack.HeaderField
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

// TestEncoder decodes every block with another implementation, with tables
// that hold everything, a part, and nothing.
func TestEncoder(t *testing.T) {
	lists := [][]hpack.HeaderField{
		fields(":status", "200", "content-type", "application/grpc", "server", "origin", "x-long", string(bytes.Repeat([]byte("y"), 300))),
		fields("grpc-status", "0", "grpc-message", "fine"),
	}
	for _, size := range []uint32{4096, 100, 0} {
		e := NewEncoder(lists...)
		var got []hpack.HeaderField
		dec := hpack.NewDecoder(4096, func(f hpack.HeaderField) { got = append(got, hpack.HeaderField{Name: f.Name, Value: f.Value}) })
		last := 0
		for round := range 6 {
			if round == 2 {
				e.SetTableSize(size)
			}
			for i, want := range lists {
				got = nil
				b := e.Block(i)
				if _, err := dec.Write(b); err != nil {
					t.Fatal(err)
				}
				if err := dec.Close(); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("table %d, round %d: %v", size, round, got)
				}
				last = len(b)
			}
		}
		if size == 4096 && last > 4 {
			t.Errorf("the block is still %d bytes long", last)
		}
	}
}

func TestDecoder(t *testing.T) {
	var out bytes.Buffer
	enc := hpack.NewEncoder(&out)
	d := NewDecoder()
	for i := range 20 {
		// Every third block moves the indices.
		list := fields(":status", "200", "x-a", "b")
		want := Status{HTTP: "200"}
		switch i % 3 {
		case 1:
			list, want = fields("grpc-status", "14"), Status{GRPC: "14"}
		case 2:
			list, want = fields(":status", "503", "x-n", fmt.Sprint(i)), Status{HTTP: "503"}
		}
		out.Reset()
		for _, f := range list {
			if err := enc.WriteField(f); err != nil {
				t.Fatal(err)
			}
		}
		got, err := d.Status(out.Bytes())
		if err != nil || got != want {
			t.Fatalf("block %d: %+v, %v", i, got, err)
		}
	}
	if _, err := d.Status([]byte{0xff, 0xff, 0xff}); err == nil {
		t.Error("a broken block was taken")
	}
}

func TestNeutral(t *testing.T) {
	for _, tt := range []struct {
		block []byte
		want  bool
	}{
		{[]byte{0x88}, true},
		{[]byte{0xff, 0x80, 0x01}, true},
		{[]byte{0x40, 1, 'a', 1, 'b'}, false},
		{[]byte{0x20}, false},
		{[]byte{0x00, 1, 'a', 1, 'b', 0x82}, true},
		{[]byte{0x1f, 0x01, 1, 'b'}, true},
		{[]byte{0x0f}, false},
		{[]byte{0x00, 9, 'a'}, false},
		{nil, true},
	} {
		if got := Neutral(tt.block); got != tt.want {
			t.Errorf("% x: %v", tt.block, got)
		}
	}
}
