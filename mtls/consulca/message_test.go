package consulca

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
)

// text appends a field of bytes.
func text(b []byte, number uint64, value string) []byte {
	b = binary.AppendUvarint(b, number<<3|wireBytes)
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}

func TestMessages(t *testing.T) {
	got, err := codec{}.Marshal(&signRequest{csr: strings.Repeat("c", 300)})
	if want := text(nil, 1, strings.Repeat("c", 300)); err != nil || string(got) != string(want) {
		t.Errorf("SignRequest is %q, %v", got, err)
	}
	if got, err := (codec{}).Marshal(&watchRequest{}); err != nil || len(got) != 0 {
		t.Errorf("WatchRootsRequest is %q, %v", got, err)
	}
	var signed signResponse
	if err := (codec{}).Unmarshal(text(nil, 2, "cert"), &signed); err != nil || signed.cert != "cert" {
		t.Errorf("SignResponse: %+v, %v", signed, err)
	}
	// A root with all its fields, of which most are passed over.
	root := text(text(nil, 1, "id"), 2, "name")
	root = binary.AppendUvarint(append(root, 3<<3|wireVarint), 99)
	root = text(text(text(root, 4, "key"), 5, "pem"), 6, "between")
	root = append(root, 7<<3|wireVarint, 1)
	root = append(root, 9<<3|wireFixed32, 1, 2, 3, 4)
	root = append(root, 10<<3|wireFixed64, 1, 2, 3, 4, 5, 6, 7, 8)
	var list watchResponse
	err = codec{}.Unmarshal(text(text(text(text(nil, 1, "id"), 2, "td.consul"), 3, string(root)), 3, ""), &list)
	if want := (watchResponse{"id", "td.consul", []rootMessage{{"id", "pem"}, {}}}); err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("WatchRootsResponse: %+v, %v", list, err)
	}
	for _, bad := range []string{"\x0a", "\x0a\x05abc", "\x00", "\x08", "\x0b", "\x0d\x01", "\x09\x01", "\xff", "\x1a\x02\x0a\x05"} {
		if err := (codec{}).Unmarshal([]byte(bad), &watchResponse{}); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
	if err := (codec{}).Unmarshal([]byte(strings.Repeat("\x1a\x00", maxRoots+1)), &watchResponse{}); err != errTooMany {
		t.Errorf("%d roots: %v", maxRoots+1, err)
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(text(text(nil, 1, "id"), 3, string(text(nil, 5, "pem"))))
	f.Add([]byte("\x0d\x01\x02\x03\x04"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m watchResponse
		if err := m.parse(b); err != nil {
			return
		}
		if len(m.roots) > maxRoots {
			t.Fatalf("%d roots", len(m.roots))
		}
		// What was read is read again from what it is written as.
		again := text(text(nil, rootsActive, m.active), rootsDomain, m.domain)
		for _, r := range m.roots {
			again = text(again, rootsList, string(text(text(nil, rootID, r.id), rootCert, r.cert)))
		}
		var second watchResponse
		if err := second.parse(again); err != nil || !reflect.DeepEqual(m, second) {
			t.Fatalf("%+v became %+v, %v", m, second, err)
		}
	})
}
