package http1

import (
	"net/http"
	"testing"
)

func TestPhrase(t *testing.T) {
	for status := range 1000 {
		if got, want := Phrase(status), http.StatusText(status); got != want {
			t.Errorf("%d: %q, net/http has %q", status, got, want)
		}
	}
}
