package http2

import (
	"io"
	"testing"
)

// A reader is kept from waiting, or woken from it, and loses nothing.
func TestInterrupt(t *testing.T) {
	say := make(chan struct{})
	v := serve(t, nil, rawConfig, func(s *Stream) {
		<-say
		_ = s.Write([]byte("hello"), End)
	})
	s := openRaw(t, dial(t, v.addr, nil, rawConfig), FromTCP)
	defer s.Close()
	if err := s.WriteRequest(nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := s.Peek()
		waits <- err
	}()
	s.Interrupt(true)
	if err := <-waits; err != ErrInterrupted {
		t.Errorf("a wait ended with %v", err)
	}
	s.Interrupt(true)
	if _, err := s.Peek(); err != ErrInterrupted {
		t.Errorf("no wait, but %v", err)
	}
	close(say)
	s.Interrupt(false)
	if b, err := io.ReadAll(s); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	s.Interrupt(true)
	if _, err := s.Peek(); err != io.EOF {
		t.Errorf("the end is hidden by %v", err)
	}
}
