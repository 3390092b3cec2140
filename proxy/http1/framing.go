package http1

import "math"

// framing reads Content-Length and Transfer-Encoding. ok is false without either.
func (h *Head) framing(w []byte, minor uint8) (f Framing, length int64, ok bool, err error) {
	if h.seen&(1<<ContentLength|1<<TransferEncoding) == 0 {
		return FramingNone, 0, false, nil
	}
	if te, chunked := h.Get(TransferEncoding); chunked {
		switch {
		case h.Has(ContentLength):
			return 0, 0, false, ErrLengthAndChunked
		case minor == 0:
			return 0, 0, false, ErrTransferEncodingInOld
		case equalFold(te.Of(w), "chunked"):
			return FramingChunked, 0, true, nil
		default:
			return 0, 0, false, codingError(w, te)
		}
	}
	cl, _ := h.Get(ContentLength)
	n := parseLength(cl.Of(w))
	if n < 0 {
		return 0, 0, false, ErrBadLength
	}
	return FramingLength, n, true, nil
}

// parseLength reads 1*DIGIT of at most 19 digits, -1 if it is anything else or
// more than an int64 holds.
func parseLength(v []byte) int64 {
	if len(v) == 0 || len(v) > 19 {
		return -1
	}
	var n uint64
	for _, c := range v {
		d := c - '0'
		if d > 9 {
			return -1
		}
		n = n*10 + uint64(d)
	}
	if n > math.MaxInt64 {
		return -1
	}
	return int64(n)
}

// codingError tells a list of codings that this proxy does not know, where the
// framing would have been clear, from one that cannot frame a message.
func codingError(w []byte, list Span) error {
	unknown := false
	for list.Off < list.End {
		var e Span
		e, list = nextElement(w, list)
		v := e.Of(w)
		switch {
		case !isToken(v):
			return ErrBadTransferEncoding
		case !equalName(v, "chunked"):
			unknown = true
		case list.Off < list.End:
			return ErrBadTransferEncoding
		}
	}
	if unknown {
		return ErrUnknownTransferCoding
	}
	return ErrBadTransferEncoding
}

// options reads the Connection fields and drops the fields that they name.
//
// A field with a FieldID stays even if it is named, and so does any whose name
// starts with x-forwarded- or x-outrigger-: they are meant for the other end or
// for this proxy, and a peer must not be able to name away what was said about it.
func (h *Head) options(w []byte) (closing, keep, upgrade bool, err error) {
	if h.seen&(1<<Connection) == 0 {
		return false, false, false, nil
	}
	n := 0
	for i := range h.Fields {
		if h.Fields[i].ID != Connection {
			continue
		}
		list := h.Fields[i].Value
		switch v := list.Of(w); { // what nearly every client sends
		case equalFold(v, "keep-alive"):
			keep = true
			continue
		case equalFold(v, "close"):
			closing = true
			continue
		}
		for list.Off < list.End {
			var e Span
			e, list = nextElement(w, list)
			v := e.Of(w)
			if !isToken(v) {
				continue // also empty elements, RFC 9110 section 5.6.1.2
			}
			if n++; n > maxOptions {
				return false, false, false, ErrTooManyOptions
			}
			switch id := lookupField(v); {
			case id == KeepAlive:
				keep = true
			case id == Upgrade:
				upgrade = true
			case id != Other:
			case equalName(v, "close"):
				closing = true
			case !protected(v):
				h.dropNamed(w, v)
			}
		}
	}
	return closing, keep, upgrade, nil
}

func (h *Head) dropNamed(w, name []byte) {
	for i := range h.Fields {
		if f := &h.Fields[i]; f.ID == Other && equalFoldBytes(f.Name.Of(w), name) {
			f.Drop = true
		}
	}
}

// protected reports whether name has a prefix that only proxies should set.
func protected(name []byte) bool {
	return hasPrefixFold(name, "x-forwarded-") || hasPrefixFold(name, "x-outrigger-")
}

// keepTrailersTE lets a TE of just "trailers" pass, which gRPC requires of every
// proxy on the way, and reports whether there is one.
func (h *Head) keepTrailersTE(w []byte) bool {
	if h.seen&(1<<TE) == 0 {
		return false
	}
	found := false
	for i := range h.Fields {
		if f := &h.Fields[i]; f.ID == TE && !found && equalName(f.Value.Of(w), "trailers") {
			f.Drop = false
			found = true
		}
	}
	return found
}

// nextElement splits the first element off a comma-separated list.
func nextElement(w []byte, list Span) (element, rest Span) {
	i := list.Off
	for i < list.End && w[i] != ',' {
		i++
	}
	element = Span{list.Off, i}.trim(w)
	if i < list.End {
		i++
	}
	return element, Span{i, list.End}
}
