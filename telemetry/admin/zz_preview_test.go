package admin

import (
	"context"
	"net"
	"os"
	"testing"
	"time"
)

func TestPreview(t *testing.T) {
	if os.Getenv("PREVIEW") == "" {
		t.Skip()
	}
	l, err := net.Listen("tcp", "127.0.0.1:18799")
	if err != nil {
		t.Fatal(err)
	}
	base := time.Now()
	v := sampleViews(base)
	old := v.Clusters
	v.Clusters = func() []ClusterView {
		c := old()
		n := uint64(time.Since(base).Milliseconds())
		for i := range c {
			c[i].Requests += n * uint64(3-i)
			c[i].Failures += n * uint64(i) / 50
		}
		return c
	}
	oe := v.Endpoints
	v.Endpoints = func() []EndpointView {
		c := oe()
		n := uint64(time.Since(base).Milliseconds())
		for i := range c {
			if c[i].State == "healthy" {
				c[i].Requests += n
			}
		}
		return c
	}
	ctx, cancel := context.WithTimeout(context.Background(), 240*time.Second)
	defer cancel()
	_ = New(Options{Listener: l, Views: v}).Run(ctx)
}
