package http2

import "golang.org/x/net/http2/hpack"

// The Huffman code of RFC 7541 appendix B, as a tree of tables that take four
// bits of input at a time. It is made of what package hpack encodes, and read
// only.
var huffman = makeHuffman()

// huffmanStep is what four bits lead to in a state: the next state, a byte that
// they complete, if any (no code is shorter than five bits, so at most one), and
// whether the input may end there.
type huffmanStep struct {
	next  uint8
	flags uint8
	out   byte
}

const (
	huffmanEmit = 1 << iota
	huffmanEnd
	huffmanFail
)

// makeHuffman lists the inner nodes of the code's binary tree; there are 256, for
// 257 symbols, so that a state fits into a byte.
func makeHuffman() *[256][16]huffmanStep {
	type node struct {
		child  [2]int // of the inner node; 0 none
		symbol [2]int // -1 none
		pad    bool   // the way here is at most seven ones
	}
	nodes := make([]node, 1, 256)
	fresh := node{symbol: [2]int{-1, -1}}
	nodes[0] = fresh
	add := func(symbol int, code []byte, bits int) {
		at := 0
		for i := range bits {
			bit := int(code[i/8]>>(7-i%8)) & 1
			if i == bits-1 {
				nodes[at].symbol[bit] = symbol
				break
			}
			if nodes[at].child[bit] == 0 {
				nodes = append(nodes, fresh)
				nodes[at].child[bit] = len(nodes) - 1
			}
			at = nodes[at].child[bit]
		}
	}
	var eight [8]byte
	for s := range 256 {
		for i := range eight {
			eight[i] = byte(s)
		}
		// Eight copies take eight times the bits of one, so as many bytes.
		add(s, hpack.AppendHuffmanString(nil, string(eight[:])), int(hpack.HuffmanEncodeLength(string(eight[:]))))
	}
	// The end-of-string symbol is thirty ones; it must not be found in a string.
	add(256, []byte{0xff, 0xff, 0xff, 0xff}, 30)
	for i, at := 0, 0; i < 8; i++ {
		nodes[at].pad = true
		at = nodes[at].child[1]
	}
	t := new([256][16]huffmanStep)
	for state := range nodes {
		for in := range 16 {
			step := &t[state][in]
			at := state
			for k := 3; k >= 0; k-- {
				bit := in >> k & 1
				if sym := nodes[at].symbol[bit]; sym >= 0 {
					if sym == 256 {
						step.flags |= huffmanFail
						break
					}
					step.out = byte(sym)
					step.flags |= huffmanEmit
					at = 0
				} else {
					at = nodes[at].child[bit]
				}
			}
			step.next = uint8(at)
			if nodes[at].pad {
				step.flags |= huffmanEnd
			}
		}
	}
	return t
}

// appendHuffman appends what b decodes to; false if it is not a Huffman-coded
// string (RFC 7541 section 5.2).
func appendHuffman(dst, b []byte) ([]byte, bool) {
	t := huffman
	state, flags := uint8(0), uint8(huffmanEnd)
	for _, c := range b {
		s := &t[state][c>>4]
		if s.flags&huffmanEmit != 0 {
			dst = append(dst, s.out)
		}
		fail := s.flags
		s = &t[s.next][c&15]
		if s.flags&huffmanEmit != 0 {
			dst = append(dst, s.out)
		}
		if (fail|s.flags)&huffmanFail != 0 {
			return dst, false
		}
		state, flags = s.next, s.flags
	}
	return dst, flags&huffmanEnd != 0
}
