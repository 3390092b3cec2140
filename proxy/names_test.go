package proxy

import (
	"fmt"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
)

func TestNameOf(t *testing.T) {
	for _, c := range []struct {
		u    config.Upstream
		want string
	}{
		{config.Upstream{Service: "api", Listen: "127.0.0.1:9001"}, "{api [127.0.0.1] 9001}"},
		{config.Upstream{Service: "api", Listen: "0.0.0.0:9001"}, "{api [127.0.0.1] 9001}"},
		{config.Upstream{Service: "api", Listen: "[::]:9001"}, "{api [::1] 9001}"},
		{config.Upstream{Service: "api", Name: "shop", Addresses: []string{"240.0.0.2", "[2001:db8::2]:80"}}, "{shop [240.0.0.2 2001:db8::2] 0}"},
		{config.Upstream{Service: "api", Listen: "127.0.0.1:9001", Addresses: []string{"240.0.0.2"}}, "{api [240.0.0.2] 0}"},
		{config.Upstream{Service: "api"}, "{api [] 0}"},
	} {
		if got := fmt.Sprint(nameOf(&c.u)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.u, got, c.want)
		}
	}
}
