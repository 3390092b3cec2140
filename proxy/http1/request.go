package http1

import "encoding/binary"

// Request is the head of a request. The zero value is ready for use; one Request
// serves any number of messages, one after the other.
type Request struct {
	Head

	Method     Method
	MethodSpan Span
	Target     Span // as received
	Form       TargetForm
	// Path is the path of the target without its query, exactly as received: not
	// decoded, not normalized. Empty for an absolute-form target without a path.
	Path Span
	// Query is what follows the first '?', without it.
	Query     Span
	Authority Span // of an absolute-form or authority-form target
	// Host is the authority that counts: of the target if it has one, else the
	// value of the Host field (RFC 9112 section 3.2.2); empty if there is neither.
	Host    Span
	HasHost bool  // AppendHead writes a Host field; always so in HTTP/1.1
	Minor   uint8 // 0 or 1

	Framing        Framing // None, Length or Chunked
	Length         int64   // of FramingLength
	KeepAlive      bool    // the client lets the connection stay open
	ExpectContinue bool    // Expect: 100-continue, in HTTP/1.1
	TrailersTE     bool    // TE: trailers; the field is forwarded
	// Upgrade reports a single Upgrade field that Connection names, in HTTP/1.1;
	// UpgradeProto is its value. The field itself is dropped.
	Upgrade      bool
	UpgradeProto Span

	done bool
}

// Reset forgets the message, complete or not.
func (r *Request) Reset() {
	*r = Request{Head: Head{Fields: r.Fields[:0]}}
}

// Parse parses the head at the beginning of b and returns its length in bytes
// with the empty line. It returns 0 and no error as long as the head is
// incomplete: call it again with more bytes behind the same ones. After a
// complete head the next call starts with the next message; after an error or to
// give up a message, call Reset.
//
// One empty line before the request is skipped (RFC 9112 section 2.2) and counts
// in the result. However slowly a head arrives, each byte is looked at a bounded
// number of times, at the price that some errors in an incomplete line are
// reported only at its end.
func (r *Request) Parse(b []byte, lim *Limits) (n int, err error) {
	if r.done {
		r.Reset()
	}
	w, full := b, false
	if limit := lim.headBytes(); len(w) >= limit {
		w, full = w[:limit], true
	}
	if full || r.resume(w) {
		pos := int(r.pos)
		if !r.begun {
			if pos, err = r.startLine(w); err != nil {
				return 0, err
			}
		}
		if pos != 0 {
			r.begun = true
			n, err = r.parseFields(w, pos, lim.fields(), 1<<Host|1<<ContentLength|1<<TransferEncoding)
			if err != nil {
				return 0, err
			}
			if n != 0 {
				r.done = true
				if err = r.finish(w); err != nil {
					return 0, err
				}
				return n, nil
			}
		} else {
			r.pause(w, 0)
		}
	}
	if full {
		return 0, ErrHeadTooLong
	}
	return 0, nil
}

// startLine parses an optional empty line and the request line. It returns the
// position after them, 0 if w ends before.
func (r *Request) startLine(w []byte) (int, error) {
	pos := 0
	if len(w) > 0 && w[0] <= '\r' {
		var err error
		if pos, err = emptyLine(w); pos == 0 {
			return 0, err
		}
	}
	i := pos
	for i < len(w) && classes[w[i]]&classToken != 0 {
		i++
	}
	if i == len(w) {
		return 0, nil
	}
	if w[i] != ' ' || i == pos {
		return 0, lineError(w, i, ErrBadMethod)
	}
	r.MethodSpan = Span{uint32(pos), uint32(i)}
	r.Method = parseMethod(w[pos:i])

	t := i + 1
	i = scanTarget(w, t)
	if i == len(w) {
		return 0, nil
	}
	if w[i] != ' ' || i == t {
		return 0, lineError(w, i, ErrBadTarget)
	}
	r.Target = Span{uint32(t), uint32(i)}

	v := w[i+1:]
	if len(v) < 10 || v[8] != '\r' || v[9] != '\n' {
		return 0, versionError(v)
	}
	switch binary.LittleEndian.Uint64(v) {
	case http11:
		r.Minor = 1
	case http10:
		r.Minor = 0
	default:
		return 0, versionError(v)
	}
	r.line = uint32(i + 9)
	return i + 11, r.parseTarget(w)
}

// The versions as little-endian words.
const (
	http1x = 'H' | 'T'<<8 | 'T'<<16 | 'P'<<24 | '/'<<32 | '1'<<40 | '.'<<48
	http11 = http1x | '1'<<56
	http10 = http1x | '0'<<56
)

// emptyLine returns the position of the request line behind one empty line.
func emptyLine(w []byte) (int, error) {
	if w[0] != '\r' {
		if w[0] == '\t' {
			return 0, ErrBadMethod
		}
		return 0, controlError(w[0])
	}
	if len(w) < 2 {
		return 0, nil
	}
	if w[1] != '\n' {
		return 0, ErrBareCR
	}
	if len(w) > 2 && (w[2] == '\r' || w[2] == '\n') {
		return 0, ErrEmptyLines
	}
	return 2, nil
}

// lineError is the error for the byte at i of the request line; nil if that takes
// the next byte to say.
func lineError(w []byte, i int, otherwise error) error {
	c := w[i]
	switch {
	case c == '\r' && i+1 == len(w):
		return nil
	case c == '\r' && w[i+1] == '\n':
		return ErrBadRequestLine
	case c == '\t':
		return otherwise
	case c < 0x20 || c == 0x7f:
		return controlError(c)
	default:
		return otherwise
	}
}

// versionError judges the end of a request line that is not a known version and
// CRLF; nil if it is incomplete.
func versionError(v []byte) error {
	const want = "HTTP/1.1\r\n"
	for k := range len(want) {
		if k == len(v) {
			return nil
		}
		switch c := v[k]; {
		case k == 5 || k == 7:
			if c < '0' || c > '9' {
				return ErrBadRequestLine
			}
		case c == want[k]:
		case k == 9:
			return ErrBareCR
		case c == '\r' || c == '\t':
			return ErrBadRequestLine
		case c < 0x20 || c == 0x7f:
			return controlError(c)
		default:
			return ErrBadRequestLine
		}
	}
	return ErrBadVersion
}

// finish draws the conclusions from the fields.
func (r *Request) finish(w []byte) error {
	if host, ok := r.Get(Host); ok {
		if !validHost(host.Of(w), true) {
			return ErrBadHost
		}
		r.Host, r.HasHost = host, true
	} else if r.Minor == 1 {
		return ErrMissingHost
	}
	switch r.Form {
	case AbsoluteForm:
		r.Host, r.HasHost = r.Authority, true
		r.Drop(Host)
	case AuthorityForm:
		r.Host = r.Authority
	case OriginForm, AsteriskForm:
	}
	var err error
	if r.Framing, r.Length, _, err = r.framing(w, r.Minor); err != nil {
		return err
	}
	closing, keep, upgrade, err := r.options(w)
	if err != nil {
		return err
	}
	r.KeepAlive = !closing && (r.Minor == 1 || keep)
	r.TrailersTE = r.keepTrailersTE(w)
	if r.Minor == 1 {
		if e, ok := r.Get(Expect); ok {
			r.ExpectContinue = equalName(e.Of(w), "100-continue")
		}
		if upgrade && r.Count(Upgrade) == 1 {
			r.UpgradeProto, _ = r.Get(Upgrade)
			r.Upgrade = r.UpgradeProto.Len() > 0
		}
	} else {
		r.Drop(Expect) // to be ignored in HTTP/1.0, RFC 9110 section 10.1.1
	}
	return nil
}

// AppendHead appends the head for forwarding: the request line as HTTP/1.1 and
// every field that is not dropped, byte for byte and in order, without the empty
// line, so that the caller adds its own fields and ends the head. b is the buffer
// that was parsed.
//
// An absolute-form target is written in origin form behind which comes a Host
// field with its authority (RFC 9112 sections 3.2.1 and 3.2.2). A request
// without HasHost has no Host: the caller adds one. Transfer-Encoding and Upgrade
// are dropped like all that concerns one connection; the caller adds what the
// framing and the upgrade on the next connection need, and a Connection with "te"
// if TrailersTE is set (RFC 9110 section 10.1.4).
func (r *Request) AppendHead(dst, b []byte) []byte {
	if r.Form != AbsoluteForm {
		if r.Minor == 1 {
			return r.appendFields(dst, b, r.MethodSpan.Off)
		}
		dst = append(dst, b[r.MethodSpan.Off:r.line-1]...)
		dst = append(dst, '1')
		return r.appendFields(dst, b, r.line)
	}
	dst = append(dst, b[r.MethodSpan.Off:r.Target.Off]...)
	switch {
	case r.Path.Len() > 0:
		dst = append(dst, b[r.Path.Off:r.Target.End]...)
	case r.Method == MethodOptions && r.Authority.End == r.Target.End:
		dst = append(dst, '*') // RFC 9112 section 3.2.4
	default:
		dst = append(dst, '/')
		dst = append(dst, b[r.Authority.End:r.Target.End]...)
	}
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, r.Authority.Of(b)...)
	return r.appendFields(dst, b, r.line)
}

// appendFields appends b from the given position to the end of the fields but
// for the dropped lines, each run of lines in one copy.
func (h *Head) appendFields(dst, b []byte, from uint32) []byte {
	for i := range h.Fields {
		if !h.Fields[i].Drop {
			continue
		}
		if off := h.Fields[i].Name.Off; off > from {
			dst = append(dst, b[from:off]...)
		}
		from = h.end
		if i+1 < len(h.Fields) {
			from = h.Fields[i+1].Name.Off
		}
	}
	return append(dst, b[from:h.end]...)
}
