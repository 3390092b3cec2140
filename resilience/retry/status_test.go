package retry

import (
	"slices"
	"testing"
	"time"
)

func TestGRPCStatusNames(t *testing.T) {
	for k, name := range grpcNames {
		var s GRPCStatus
		if k == 0 {
			if s.UnmarshalText([]byte(name)) == nil {
				t.Errorf("%s was taken for a failure", name)
			}
			continue
		}
		if err := s.UnmarshalText([]byte(name)); err != nil || s != GRPCStatus(k) {
			t.Errorf("%s is %d, %v", name, s, err)
		}
		if text, _ := s.MarshalText(); string(text) != name {
			t.Errorf("%d is written %s, want %s", k, text, name)
		}
	}
	if GRPCUnavailable.String() != "UNAVAILABLE" || GRPCResourceExhausted.String() != "RESOURCE_EXHAUSTED" || GRPCStatus(17).String() != "unknown" {
		t.Error("numbers and names have come apart")
	}
	for _, bad := range []string{"", "14", "UNAVAILABLE ", "NOPE"} {
		var s GRPCStatus
		if s.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q was taken for %s", bad, s)
		}
	}
}

func TestGRPCStatusesValidate(t *testing.T) {
	c := Default()
	c.GRPCStatuses = []GRPCStatus{14, 0, 17, 8, 14}
	var fields []string
	c.Validate(func(field, _ string) { fields = append(fields, field) })
	if want := []string{"grpc_statuses[1]", "grpc_statuses[2]", "grpc_statuses[4]"}; !slices.Equal(fields, want) {
		t.Errorf("problems at %q, want %q", fields, want)
	}
}

func TestParsePushback(t *testing.T) {
	for text, want := range map[string]struct {
		d time.Duration
		p Pushback
	}{
		"0": {0, PushbackWait}, "1": {time.Millisecond, PushbackWait}, "007": {7 * time.Millisecond, PushbackWait},
		"2147483647": {2147483647 * time.Millisecond, PushbackWait},
		"2147483648": {0, PushbackStop}, "99999999999999999999999999": {0, PushbackStop},
		"": {0, PushbackStop}, "-1": {0, PushbackStop}, "-": {0, PushbackStop}, "+1": {0, PushbackStop}, "1.5": {0, PushbackStop},
		" 1": {0, PushbackStop}, "1s": {0, PushbackStop}, "0x10": {0, PushbackStop},
	} {
		if d, p := ParsePushback([]byte(text)); d != want.d || p != want.p {
			t.Errorf("%q gives %v, %d; want %v, %d", text, d, p, want.d, want.p)
		}
	}
	if raceEnabled {
		return
	}
	b := []byte("1500")
	if n := testing.AllocsPerRun(100, func() { ParsePushback(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
