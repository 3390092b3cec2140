package jwt

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

// Request is where tokens are looked for.
type Request struct {
	Head  *http1.Head
	Raw   []byte // that the head's spans refer to
	Query []byte // of the target, without "?"
}

// candidates is how many tokens of a request are tried.
const candidates = 4

// each calls f with what may be tokens, in the order of the places, until it
// returns false. i is the place.
func (v *Verifier) each(r *Request, f func(token []byte, i int) bool) {
	left := candidates
	try := func(token []byte, i int) bool {
		if len(token) == 0 {
			return true
		}
		left--
		return f(token, i) && left > 0
	}
	for i := range v.places {
		p := &v.places[i]
		switch {
		case p.query:
			for q := r.Query; len(q) > 0; {
				var pair []byte
				pair, q, _ = bytes.Cut(q, ampersand)
				if name, value, _ := bytes.Cut(pair, equals); string(name) == p.name && !try(value, i) {
					return
				}
			}
		case r.Head == nil:
		case p.header:
			for k := range r.Head.Fields {
				l := &r.Head.Fields[k]
				if l.ID != p.id || p.id == http1.Other && !http1.EqualFold(l.Name.Of(r.Raw), p.name) {
					continue
				}
				b := l.Value.Of(r.Raw)
				if n := len(p.prefix); len(b) < n || !http1.EqualFold(b[:n], p.prefix) {
					continue
				} else if !try(bytes.TrimLeft(b[n:], " "), i) {
					return
				}
			}
		default:
			for k := range r.Head.Fields {
				l := &r.Head.Fields[k]
				if l.ID != http1.Cookie {
					continue
				}
				for rest := l.Value.Of(r.Raw); len(rest) > 0; {
					var one []byte
					one, rest, _ = bytes.Cut(rest, semicolon)
					if name, value, _ := bytes.Cut(bytes.TrimLeft(one, " "), equals); string(name) == p.name && !try(bytes.Trim(value, `"`), i) {
						return
					}
				}
			}
		}
	}
}

var ampersand, equals, semicolon = []byte("&"), []byte("="), []byte(";")

// Drop leaves out of a forwarded head the fields from which a token was taken
// that is not to be passed on, if found says that one was verified there, and
// always what a caller has sent in the name of the payload.
func (v *Verifier) Drop(h *http1.Head, raw []byte, found *Token) {
	if v.payload != "" {
		drop(h, raw, http1.FieldOf(v.payload), v.payload)
	}
	if found == nil {
		return
	}
	for i := range v.places {
		if p := &v.places[i]; p.header && !p.forward {
			drop(h, raw, p.id, p.name)
		}
	}
}

func drop(h *http1.Head, raw []byte, id http1.FieldID, lower string) {
	if id == http1.Other {
		h.DropNamed(raw, lower)
	} else {
		h.Drop(id)
	}
}

// AppendPayload appends the field with the payload of t, if there is to be one.
func (v *Verifier) AppendPayload(b []byte, t *Token) []byte {
	if v.payload == "" || t == nil {
		return b
	}
	b = append(b, v.payload...)
	b = append(b, ": "...)
	b = append(b, t.payload...)
	return append(b, "\r\n"...)
}

// PayloadSize is how many bytes AppendPayload appends.
func (v *Verifier) PayloadSize(t *Token) int {
	if v.payload == "" || t == nil {
		return 0
	}
	return len(v.payload) + len(": \r\n") + len(t.payload)
}
