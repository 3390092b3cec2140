package http1

import "encoding/binary"

// Response is the head of a response. The zero value is ready for use; one
// Response serves any number of messages, one after the other.
type Response struct {
	Head

	Status int  // 100 to 999
	Reason Span // may be empty
	Minor  uint8

	Framing   Framing
	Length    int64 // of FramingLength
	KeepAlive bool  // the server lets the connection stay open and the body does not end with it
	Interim   bool  // 1xx but not 101: another head follows
	// Upgrade reports a 101 with one Upgrade field; UpgradeProto is its value. The
	// field itself is dropped.
	Upgrade      bool
	UpgradeProto Span

	done bool
}

// Reset forgets the message, complete or not.
func (r *Response) Reset() {
	*r = Response{Head: Head{Fields: r.Fields[:0]}}
}

// Parse parses the head at the beginning of b, which answers a request with the
// given method, as Request.Parse does. An interim response is one message; the
// next call parses the head after it. Nothing may precede the status line.
func (r *Response) Parse(b []byte, lim *Limits, forMethod Method) (n int, err error) {
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
			if pos, err = r.statusLine(w); err != nil {
				return 0, err
			}
		}
		if pos != 0 {
			r.begun = true
			n, err = r.parseFields(w, pos, lim.fields(), 1<<ContentLength|1<<TransferEncoding)
			if err != nil {
				return 0, err
			}
			if n != 0 {
				r.done = true
				if err = r.finish(w, forMethod); err != nil {
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

// statusLine parses the status line, also one without the space behind the
// status, which is common. It returns the position after it, 0 if w ends before.
func (r *Response) statusLine(w []byte) (int, error) {
	if len(w) < 14 {
		return 0, statusLineError(w)
	}
	switch binary.LittleEndian.Uint64(w) {
	case http11:
		r.Minor = 1
	case http10:
		r.Minor = 0
	default:
		return 0, statusLineError(w)
	}
	d0, d1, d2 := w[9]-'0', w[10]-'0', w[11]-'0'
	if w[8] != ' ' || d0 > 9 || d1 > 9 || d2 > 9 || d0 == 0 || w[12] != ' ' && w[12] != '\r' {
		return 0, statusLineError(w)
	}
	e := scanText(w, 12)
	if e+1 >= len(w) {
		if e < len(w) && w[e] != '\r' {
			return 0, controlError(w[e])
		}
		return 0, nil
	}
	if w[e] != '\r' || w[e+1] != '\n' {
		return 0, controlError(w[e])
	}
	r.Status = int(d0)*100 + int(d1)*10 + int(d2)
	r.Reason = Span{uint32(min(13, e)), uint32(e)}
	r.line = uint32(e)
	return e + 2, nil
}

// statusLineError judges the beginning of what is not a status line; nil if it
// could still become one.
func statusLineError(w []byte) error {
	const want = "HTTP/1.1 200"
	for k := range len(want) {
		if k == len(w) {
			return nil
		}
		digit := w[k] >= '0' && w[k] <= '9'
		switch {
		case k == 5 || k == 7 || k > 8:
			if !digit || k == 9 && w[k] == '0' {
				return ErrBadStatusLine
			}
		case w[k] != want[k]:
			return ErrBadStatusLine
		}
	}
	if w[5] != '1' || w[7] > '1' {
		return ErrBadVersion
	}
	if len(w) > 12 {
		switch c := w[12]; {
		case c == '\r' && len(w) > 13 && w[13] != '\n':
			return ErrBareCR
		case c == ' ' && len(w) > 13 && w[13] != '\r' && w[13] != '\t' && (w[13] < 0x20 || w[13] == 0x7f):
			return controlError(w[13])
		case c == ' ' || c == '\r':
		case c == '\n':
			return ErrBareLF
		default:
			return ErrBadStatusLine
		}
	}
	return nil
}

// finish draws the conclusions from the fields, RFC 9112 section 6.3.
func (r *Response) finish(w []byte, forMethod Method) error {
	f, length, framed, err := r.framing(w, r.Minor)
	if err != nil {
		return err
	}
	switch {
	case r.Status < 200 || r.Status == 204 || forMethod == MethodConnect && r.Status < 300:
		// Neither field may be here (RFC 9110 section 8.6, RFC 9112 section 6.1),
		// and the next hop need not agree on ignoring them.
		r.Drop(ContentLength)
	case forMethod == MethodHead || r.Status == 304:
	case framed:
		r.Framing, r.Length = f, length
	default:
		r.Framing = FramingUntilClose
	}
	closing, keep, _, err := r.options(w)
	if err != nil {
		return err
	}
	r.KeepAlive = !closing && (r.Minor == 1 || keep) && r.Framing != FramingUntilClose
	r.Interim = r.Status < 200 && r.Status != 101
	if r.Status == 101 && r.Count(Upgrade) == 1 {
		r.UpgradeProto, _ = r.Get(Upgrade)
		r.Upgrade = r.UpgradeProto.Len() > 0
	}
	return nil
}

// AppendHead appends the head for forwarding, as Request.AppendHead does: the
// status line as HTTP/1.1 and every field that is not dropped, without the empty
// line.
func (r *Response) AppendHead(dst, b []byte) []byte {
	if r.Minor == 1 && r.line > 12 {
		return r.appendFields(dst, b, 0)
	}
	dst = append(dst, "HTTP/1.1"...)
	dst = append(dst, b[8:12]...)
	if r.line == 12 {
		dst = append(dst, ' ')
	}
	return r.appendFields(dst, b, 12)
}
