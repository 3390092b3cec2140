package http2

import "encoding/binary"

// frameHead is the length of a frame's header, RFC 9113 section 4.1.
const frameHead = 9

const (
	maxWindow     = 1<<31 - 1
	initialWindow = 65535    // RFC 9113 section 6.9.2
	maxFrame      = 16 << 10 // what a peer may send, and this package sends, in one frame
	maxStreamID   = 1<<31 - 1
	tableSize     = 4096 // of HPACK's dynamic tables, RFC 9113 section 6.5.2
)

// preface is what a client sends first, RFC 9113 section 3.4.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Frame types.
const (
	frameData = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePushPromise
	framePing
	frameGoAway
	frameWindowUpdate
	frameContinuation
)

// Frame flags.
const (
	flagEndStream  = 0x1 // DATA, HEADERS
	flagAck        = 0x1 // SETTINGS, PING
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings, RFC 9113 section 6.5.2 and RFC 8441 section 3.
const (
	settingTableSize       = 1
	settingEnablePush      = 2
	settingMaxStreams      = 3
	settingInitialWindow   = 4
	settingMaxFrame        = 5
	settingMaxHeaderList   = 6
	settingConnectProtocol = 8
)

// frame is a frame as it lies in the read buffer.
type frame struct {
	kind, flags uint8
	id          uint32
	payload     []byte
}

func (f *frame) has(flag uint8) bool { return f.flags&flag != 0 }

// unpadded returns the payload without padding; false if that is malformed
// (RFC 9113 section 6.1).
func (f *frame) unpadded() ([]byte, bool) {
	p := f.payload
	if !f.has(flagPadded) {
		return p, true
	}
	if len(p) == 0 || int(p[0]) >= len(p) {
		return nil, false
	}
	return p[1 : len(p)-int(p[0])], true
}

func appendFrameHead(b []byte, length int, kind, flags uint8, id uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func putLength(b []byte, length int) {
	b[0], b[1], b[2] = byte(length>>16), byte(length>>8), byte(length)
}

func appendWord(b []byte, kind, flags uint8, id, word uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHead(b, 4, kind, flags, id), word)
}

func appendSetting(b []byte, id uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), v)
}

func appendGoAway(b []byte, last uint32, code Code, debug string) []byte {
	b = appendFrameHead(b, 8+len(debug), frameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, debug...)
}
