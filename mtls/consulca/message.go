package consulca

import (
	"encoding/binary"
	"errors"
)

// The messages of hashicorp.consul.connectca are written and read here, as far as they are used: a request of one
// string, a response of one string, and a list of roots of which four fields count.

// Field numbers (pbconnectca/ca.proto).
const (
	signCSR       = 1
	signCert      = 2
	rootsActive   = 1
	rootsDomain   = 2
	rootsList     = 3
	rootID        = 1
	rootCert      = 5
	wireVarint    = 0
	wireFixed64   = 1
	wireBytes     = 2
	wireFixed32   = 5
	maxRoots      = 64
	maxGRPCAnswer = 4 << 20
)

var (
	errMessage  = errors.New("consulca: an answer that is no message of ConnectCAService")
	errTooMany  = errors.New("consulca: the list has more than 64 roots")
	errNotKnown = errors.New("consulca: a message of another service")
)

type signRequest struct{ csr string }

type signResponse struct{ cert string }

type watchRequest struct{}

type watchResponse struct {
	active, domain string
	roots          []rootMessage
}

type rootMessage struct{ id, cert string }

// codec writes and reads the messages.
type codec struct{}

// Marshal implements encoding.Codec.
func (codec) Marshal(v any) ([]byte, error) {
	switch m := v.(type) {
	case *signRequest:
		b := binary.AppendUvarint(nil, signCSR<<3|wireBytes)
		b = binary.AppendUvarint(b, uint64(len(m.csr)))
		return append(b, m.csr...), nil
	case *watchRequest:
		return nil, nil
	}
	return nil, errNotKnown
}

// Unmarshal implements encoding.Codec.
func (codec) Unmarshal(b []byte, v any) error {
	switch m := v.(type) {
	case *signResponse:
		return fields(b, func(n uint64, value []byte) error {
			if n == signCert {
				m.cert = string(value)
			}
			return nil
		})
	case *watchResponse:
		return m.parse(b)
	}
	return errNotKnown
}

// Name implements encoding.Codec.
func (codec) Name() string { return "proto" }

func (m *watchResponse) parse(b []byte) error {
	return fields(b, func(n uint64, value []byte) error {
		switch n {
		case rootsActive:
			m.active = string(value)
		case rootsDomain:
			m.domain = string(value)
		case rootsList:
			if len(m.roots) == maxRoots {
				return errTooMany
			}
			var r rootMessage
			err := fields(value, func(n uint64, value []byte) error {
				switch n {
				case rootID:
					r.id = string(value)
				case rootCert:
					r.cert = string(value)
				}
				return nil
			})
			m.roots = append(m.roots, r)
			return err
		}
		return nil
	})
}

// fields calls take for each field of bytes in a message and passes over those of other types.
func fields(b []byte, take func(number uint64, value []byte) error) error {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 || key>>3 == 0 {
			return errMessage
		}
		b = b[n:]
		var size uint64
		switch key & 7 {
		case wireVarint:
			if _, n = binary.Uvarint(b); n <= 0 {
				return errMessage
			}
			b = b[n:]
			continue
		case wireFixed64:
			size = 8
		case wireFixed32:
			size = 4
		case wireBytes:
			if size, n = binary.Uvarint(b); n <= 0 {
				return errMessage
			}
			b = b[n:]
		default:
			return errMessage
		}
		if size > uint64(len(b)) {
			return errMessage
		}
		if key&7 == wireBytes {
			if err := take(key>>3, b[:size]); err != nil {
				return err
			}
		}
		b = b[size:]
	}
	return nil
}
