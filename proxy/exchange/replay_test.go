package exchange_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestReplay: an attempt fails while the body is still coming; the next gets what
// the first had, and then the rest with its trailers.
func TestReplay(t *testing.T) {
	first, rest := octets(20_000), bytes.Repeat([]byte("rest"), 5000)
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			failed := make(chan bool, 1)
			p := newPair(t, l, func(s *setup) { s.policy.Retry = retrying(3) }, func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) == 1 {
					if _, err := io.ReadFull(r.Body, make([]byte, len(first))); err != nil {
						t.Error(err)
					}
					w.Header().Set("Connection", "close")
					w.WriteHeader(503)
					_ = http.NewResponseController(w).Flush()
					failed <- true
					return
				}
				b, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				w.Header().Set("x-check", r.Trailer.Get("x-check"))
				_, _ = w.Write(b)
			}, nil)
			body, end := io.Pipe()
			go func() {
				_, _ = end.Write(first)
				<-failed
				_, _ = end.Write(rest)
				_ = end.Close()
			}()
			r, _ := http.NewRequest("PUT", "http://"+p.ln.Addr().String()+"/", body)
			r.Trailer = http.Header{"X-Check": {"checked"}}
			res, err := p.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != 200 || !bytes.Equal(got, append(bytes.Clone(first), rest...)) {
				t.Errorf("status %d, %d bytes, %v", res.StatusCode, len(got), err)
			}
			if c := res.Header.Get("x-check"); c != "checked" {
				t.Errorf("trailer %q", c)
			}
			if rec := p.wantReasons("ok"); len(rec) == 1 && (rec[0].Attempts != 2 || rec[0].BytesIn != uint64(len(first)+len(rest))) {
				t.Errorf("%+v", rec[0])
			}
		})
	}
}

// TestReplayWhole: the attempt fails when it has had all of a body that was passed
// on as it came.
func TestReplayWhole(t *testing.T) {
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			p := newPair(t, l, func(s *setup) { s.policy.Retry = retrying(3) }, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				if n.Add(1) < 3 {
					w.WriteHeader(503)
					return
				}
				w.Header().Set("x-check", r.Trailer.Get("x-check"))
				_, _ = w.Write(b)
			}, nil)
			for _, size := range []int{10_000, 60_000} {
				n.Store(0)
				body, end := io.Pipe()
				go func() {
					for b := range slices.Chunk(octets(size), 700) {
						_, _ = end.Write(b)
					}
					_ = end.Close()
				}()
				r, _ := http.NewRequest("PUT", "http://"+p.ln.Addr().String()+"/", body)
				r.Trailer = http.Header{"X-Check": {"checked"}}
				res, err := p.client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || !bytes.Equal(got, octets(size)) || res.Header.Get("x-check") != "checked" || n.Load() != 3 {
					t.Errorf("%d bytes: status %d, %d bytes, %v, %v, %d attempts", size, res.StatusCode, len(got), err, res.Header, n.Load())
				}
			}
			p.wantReasons("ok", "ok")
		})
	}
}

// TestReplayLost: of more than is kept there is no second attempt.
func TestReplayLost(t *testing.T) {
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, l, func(s *setup) {
				s.policy.Retry = retrying(3)
				s.policy.Retry.MaxBodyBytes = 30_000
			}, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(503)
			}, nil)
			for _, size := range []int{30_000, 30_001} {
				p.heads.Store(0)
				res, _ := p.must(t, "PUT", "/", opaque{bytes.NewReader(octets(size))})
				want := int64(3)
				if size > 30_000 {
					want = 1
				}
				if res.StatusCode != 503 || p.heads.Load() != want {
					t.Errorf("%d bytes: status %d after %d attempts, want %d", size, res.StatusCode, p.heads.Load(), want)
				}
			}
			p.wantReasons("upstream_error", "upstream_error")
		})
	}
}

// TestReplayCallerGone: the caller breaks off between two attempts, or in one.
func TestReplayCallerGone(t *testing.T) {
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			asked, ended := make(chan bool, 4), make(chan bool, 4)
			p := newPair(t, l, func(s *setup) { s.policy.Retry = retrying(2) }, func(w http.ResponseWriter, r *http.Request) {
				asked <- true
				_, _ = io.Copy(io.Discard, r.Body)
				ended <- true
			}, nil)
			body, end := io.Pipe()
			go func() {
				_, _ = io.WriteString(end, "some of it")
				<-asked
				_ = end.CloseWithError(fmt.Errorf("enough"))
			}()
			if res, err := p.ask(t, "PUT", "/", body); err == nil {
				res.Body.Close()
				if l.down {
					t.Errorf("status %d for a request that was broken off", res.StatusCode)
				}
			} else if !strings.Contains(err.Error(), "enough") {
				t.Error(err)
			}
			<-ended
			p.wantReasons("downstream_gone")
		})
	}
}

// TestReplayAnywhere: attempts fail at any place of bodies that come in any parts.
// Whatever is kept is sent again: the origin that answers has had exactly the body.
func TestReplayAnywhere(t *testing.T) {
	const most = 40_000
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			met := map[string]int{} // attempts by the request's name
			p := newPair(t, l, func(s *setup) {
				s.policy.Retry = retrying(4)
				s.policy.Retry.MaxBodyBytes = most
				s.policy.Retry.BudgetPercent = 1000
			}, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				n := met[r.URL.Path]
				met[r.URL.Path]++
				mu.Unlock()
				if fails := strings.Split(r.Header.Get("x-fails"), ","); n < len(fails) && fails[n] != "" {
					at, _ := strconv.Atoi(fails[n])
					_, _ = io.CopyN(io.Discard, r.Body, int64(at))
					if at%2 == 0 {
						panic(http.ErrAbortHandler)
					}
					w.WriteHeader(503)
					return
				}
				sum := sha256.New()
				size, err := io.Copy(sum, r.Body)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				_, _ = fmt.Fprintf(w, "%d %x %s", size, sum.Sum(nil), r.Trailer.Get("x-check"))
			}, nil)
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rnd := rand.New(rand.NewPCG(seed, 1))
			for i := range 60 {
				body := make([]byte, rnd.IntN(most+1))
				for k := range body {
					body[k] = byte(rnd.Uint32())
				}
				var fails []string
				for range rnd.IntN(4) {
					fails = append(fails, strconv.Itoa(rnd.IntN(len(body)+1)))
				}
				part := 1 + rnd.IntN(9000)
				in, out := io.Pipe()
				go func() {
					for b := range slices.Chunk(body, part) {
						if _, err := out.Write(b); err != nil {
							return
						}
					}
					_ = out.Close()
				}()
				r, _ := http.NewRequest("PUT", fmt.Sprintf("http://%s/%d", p.ln.Addr(), i), in)
				r.Header.Set("x-fails", strings.Join(fails, ","))
				r.Trailer = http.Header{"X-Check": {"checked"}}
				res, err := p.client.Do(r)
				if err != nil {
					t.Fatalf("request %d: %v", i, err)
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				want := fmt.Sprintf("%d %x checked", len(body), sha256.Sum256(body))
				if err != nil || res.StatusCode != 200 || string(got) != want {
					t.Fatalf("request %d of %d bytes in parts of %d, failing at %v: status %d, %q, %v; want %q", i, len(body), part, fails, res.StatusCode, got, err, want)
				}
			}
		})
	}
}
