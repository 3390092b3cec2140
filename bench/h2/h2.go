// Package h2 reads and writes HTTP/2 frames (RFC 9113) for the load generator and the origin, with as little work for each as the protocol allows.
package h2

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Preface is what a client sends before its first frame (RFC 9113, section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Frame types (RFC 9113, section 6).
const (
	TypeData         = 0x0
	TypeHeaders      = 0x1
	TypeRST          = 0x3
	TypeSettings     = 0x4
	TypePing         = 0x6
	TypeGoAway       = 0x7
	TypeWindowUpdate = 0x8
	TypeContinuation = 0x9
)

// Flags of frames.
const (
	FlagEndStream  = 0x1 // DATA, HEADERS
	FlagAck        = 0x1 // SETTINGS, PING
	FlagEndHeaders = 0x4
	FlagPadded     = 0x8
	FlagPriority   = 0x20
)

// Settings that matter here (RFC 9113, section 6.5.2).
const (
	SettingTableSize     = 0x1
	SettingPush          = 0x2
	SettingMaxStreams    = 0x3
	SettingInitialWindow = 0x4
)

const (
	// DefaultWindow is the flow-control window of a stream and of a
	// connection unless told otherwise.
	DefaultWindow = 65535
	// MaxWindow is the largest window.
	MaxWindow = 1<<31 - 1
	// MaxFrame is the largest payload that is sent, and taken, without a
	// setting: SETTINGS_MAX_FRAME_SIZE stays at its default.
	MaxFrame = 16 << 10

	headerSize = 9
)

// Frame is one frame; Payload is valid until the next one is read.
type Frame struct {
	Type, Flags byte
	Stream      uint32
	Payload     []byte
}

// Has says whether a flag is set.
func (f *Frame) Has(flag byte) bool { return f.Flags&flag != 0 }

// AppendFrame appends a whole frame.
func AppendFrame(b []byte, typ, flags byte, stream uint32, payload []byte) []byte {
	b = AppendHead(b, len(payload), typ, flags, stream)
	return append(b, payload...)
}

// AppendHead appends the head of a frame with a payload of n bytes.
func AppendHead(b []byte, n int, typ, flags byte, stream uint32) []byte {
	b = append(b, byte(n>>16), byte(n>>8), byte(n), typ, flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

// AppendWindowUpdate appends a WINDOW_UPDATE frame; stream 0 is the connection.
func AppendWindowUpdate(b []byte, stream, n uint32) []byte {
	b = AppendHead(b, 4, TypeWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(b, n)
}

// Setting is one parameter of a SETTINGS frame.
type Setting struct {
	ID    uint16
	Value uint32
}

// AppendSettings appends a SETTINGS frame.
func AppendSettings(b []byte, settings ...Setting) []byte {
	b = AppendHead(b, 6*len(settings), TypeSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, s.ID)
		b = binary.BigEndian.AppendUint32(b, s.Value)
	}
	return b
}

// Settings calls each for every parameter of a SETTINGS frame.
func (f *Frame) Settings(each func(Setting)) error {
	if len(f.Payload)%6 != 0 {
		return errors.New("http/2: a SETTINGS frame of broken length")
	}
	for p := f.Payload; len(p) > 0; p = p[6:] {
		each(Setting{binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])})
	}
	return nil
}

// Uint32 is the number in a WINDOW_UPDATE or RST_STREAM frame, or the last
// stream of a GOAWAY frame, without its reserved bit.
func (f *Frame) Uint32() (uint32, error) {
	if len(f.Payload) < 4 {
		return 0, fmt.Errorf("http/2: a frame of type %d with %d bytes", f.Type, len(f.Payload))
	}
	return binary.BigEndian.Uint32(f.Payload) &^ (1 << 31), nil
}

// Content is the payload of DATA and HEADERS frames without padding and
// priority.
func (f *Frame) Content() ([]byte, error) {
	p, pad := f.Payload, 0
	bad := fmt.Errorf("http/2: a frame of type %d with broken padding", f.Type)
	if f.Has(FlagPadded) {
		if len(p) < 1 {
			return nil, bad
		}
		pad, p = int(p[0]), p[1:]
	}
	if f.Type == TypeHeaders && f.Has(FlagPriority) {
		if len(p) < 5 {
			return nil, bad
		}
		p = p[5:]
	}
	if pad > len(p) {
		return nil, bad
	}
	return p[:len(p)-pad], nil
}

// Reader splits what arrives into frames.
type Reader struct{ rest []byte }

// Feed calls each for every frame that is whole with the bytes of piece. A
// frame's payload may point into piece.
func (r *Reader) Feed(piece []byte, each func(*Frame) error) error {
	data := piece
	if len(r.rest) > 0 {
		r.rest = append(r.rest, piece...)
		data = r.rest
	}
	var f Frame
	for len(data) >= headerSize {
		n := int(data[0])<<16 | int(data[1])<<8 | int(data[2])
		if n > MaxFrame {
			return fmt.Errorf("http/2: a frame of %d bytes; at most %d were allowed", n, MaxFrame)
		}
		if len(data) < headerSize+n {
			break
		}
		f = Frame{Type: data[3], Flags: data[4], Stream: binary.BigEndian.Uint32(data[5:]) &^ (1 << 31), Payload: data[headerSize : headerSize+n]}
		data = data[headerSize+n:]
		if err := each(&f); err != nil {
			return err
		}
	}
	r.rest = append(r.rest[:0], data...)
	return nil
}
