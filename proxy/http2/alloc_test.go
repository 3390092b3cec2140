package http2

import "testing"

// An exchange allocates nothing once its connection is warm, on either side.
func TestExchangesDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	v := serve(t, nil, nil, benchHandler())
	k := dial(t, v.addr, nil, nil)
	head := []byte(benchRequest)
	buf := make([]byte, 2048)
	for range 200 {
		if err := exchangeOnce(k, head, buf); err != nil {
			t.Fatal(err)
		}
	}
	n := testing.AllocsPerRun(500, func() {
		if err := exchangeOnce(k, head, buf); err != nil {
			t.Fatal(err)
		}
	})
	// The runtime itself may allocate now and then.
	if n >= 1 {
		t.Errorf("%v allocations an exchange", n)
	}
}
