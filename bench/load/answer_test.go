package load

import (
	"bytes"
	"strings"
	"testing"
)

func TestAnswers(t *testing.T) {
	tests := []struct {
		name, in string
		closes   bool
		wantErr  string
		whole    bool
	}{
		{"body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, "", true},
		{"no body", "HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", false, "", true},
		{"no reason", "HTTP/1.1 200 \r\nX: y\r\nCONTENT-LENGTH: 1\r\n\r\nx", false, "", true},
		{"close", "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nhi", true, "", true},
		{"keep-alive", "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", false, "", true},
		{"unfinished head", "HTTP/1.1 200 OK\r\nContent-Le", false, "", false},
		{"unfinished body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", false, "", false},
		{"too much", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhello", false, "follow", false},
		{"no length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, "no Content-Length", false},
		{"bad length", "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n", false, "content-length", false},
		{"negative", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", false, "content-length", false},
		{"status", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", false, "502", false},
		{"not HTTP", "SSH-2.0-OpenSSH_9.2p1\r\n\r\n", false, "status line", false},
		{"short", "HTTP\r\n\r\n", false, "status line", false},
		{"endless", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", maxHead), false, "longer", false},
	}
	for _, tt := range tests {
		for _, step := range []int{1, 3, 7, len(tt.in)} {
			var a answer
			for round := range 2 { // the second one on the same connection
				done, err := feedAll(&a, []byte(tt.in), step)
				if tt.wantErr != "" {
					if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
						t.Errorf("%s in steps of %d: error %v, want %q", tt.name, step, err, tt.wantErr)
					}
					break
				}
				if err != nil || done != tt.whole || a.close != tt.closes {
					t.Errorf("%s in steps of %d, round %d: whole %v, closes %v, %v", tt.name, step, round, done, a.close, err)
				}
				a.reset()
			}
		}
	}
}

func feedAll(a *answer, in []byte, step int) (done bool, err error) {
	for len(in) > 0 && err == nil {
		n := min(step, len(in))
		done, err = a.feed(in[:n])
		in = in[n:]
	}
	return done, err
}

// FuzzAnswer holds that cutting a stream into pieces changes nothing.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), 3)
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhello"), 1)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		if step < 1 || len(in) == 0 {
			return
		}
		var whole, cut answer
		done1, err1 := whole.feed(bytes.Clone(in))
		done2, err2 := feedAll(&cut, in, step)
		if (err1 == nil) != (err2 == nil) || err1 == nil && done1 != done2 {
			t.Fatalf("whole: %v, %v; cut: %v, %v", done1, err1, done2, err2)
		}
	})
}

func TestFeedDoesNotAllocate(t *testing.T) {
	in := []byte("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 5\r\n\r\nhello")
	var a answer
	if n := testing.AllocsPerRun(100, func() {
		if done, err := a.feed(in); !done || err != nil {
			t.Fatal(done, err)
		}
		a.reset()
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
