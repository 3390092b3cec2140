// Package websocket follows the frames of a WebSocket (RFC 6455) through its bytes, without keeping any, and makes the frames that close one.
package websocket

import "math"

// Opcode says what a frame is, RFC 6455 section 5.2.
type Opcode uint8

// Opcodes that matter here.
const (
	Close Opcode = 0x8
)

// Follower follows one direction of a WebSocket: where its frames end. The zero
// value stands at the beginning. Extensions change nothing of that, since they
// may not touch a frame's length. Nothing is refused: whether frames are well
// formed is for the peers to judge.
type Follower struct {
	left   uint64 // bytes of the frame that are still to come, once its length is known
	length uint64 // the extended length as far as it has come
	stage  stage
	more   uint8 // bytes of the extended length that are still to come
	mask   uint8 // bytes of masking key
	op     Opcode
}

// stage is what comes next.
type stage uint8

const (
	first   stage = iota // FIN, RSV and the opcode
	second               // MASK and the length
	longer               // extended length
	payload              // masking key and payload
)

// Next takes the bytes of p up to the end of the first frame that ends in it,
// or all of p if none does. It returns their number, whether a frame ended with
// them, and if so of what kind it was. p must not be empty.
func (f *Follower) Next(p []byte) (n int, op Opcode, ended bool) {
	for n < len(p) {
		switch b := p[n]; f.stage {
		case first:
			f.op = Opcode(b & 0x0f)
			f.stage = second
			n++
		case second:
			n++
			f.mask = b >> 7 * 4
			f.length = 0
			switch b &= 0x7f; b {
			case 126:
				f.stage, f.more = longer, 2
			case 127:
				f.stage, f.more = longer, 8
			default:
				f.length = uint64(b)
				f.begin()
			}
		case longer:
			n++
			f.length = f.length<<8 | uint64(b)
			if f.more--; f.more == 0 {
				f.begin()
			}
		case payload:
			k := min(uint64(len(p)-n), f.left)
			n += int(k)
			f.left -= k
		}
		if f.stage == payload && f.left == 0 {
			f.stage = first
			return n, f.op, true
		}
	}
	return n, 0, false
}

// begin notes how much follows the length. One that is longer than can be, which
// RFC 6455 forbids, never ends.
func (f *Follower) begin() {
	f.stage = payload
	if f.left = f.length + uint64(f.mask); f.left < f.length {
		f.left = math.MaxUint64
	}
}

// Between reports whether the stream is between two frames, where another may be
// put in: a control frame also between the fragments of a message (RFC 6455
// section 5.4).
func (f *Follower) Between() bool { return f.stage == first }
