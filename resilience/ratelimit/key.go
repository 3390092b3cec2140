package ratelimit

import (
	"bytes"
	"crypto/sha256"
)

// keyBytes is how long a key may be to be kept as it is.
const keyBytes = 64

// digested marks a key that is kept as its digest.
const digested = 0xff

// Key says whose bucket is asked. Keys of texts that differ differ. The zero
// value is that of the empty text.
type Key struct {
	b [keyBytes]byte
	n uint8
}

// KeyOf returns the key of a text of any length. A long one is kept as its
// SHA-256.
func KeyOf(text []byte) (k Key) {
	if len(text) > keyBytes {
		sum := sha256.Sum256(text)
		k.n = digested
		copy(k.b[:], sum[:])
		return k
	}
	k.n = uint8(copy(k.b[:], text))
	return k
}

// bytes is what of k is compared and hashed.
func (k *Key) bytes() []byte {
	if k.n == digested {
		return k.b[:sha256.Size]
	}
	return k.b[:k.n]
}

// rememberedBytes is how long a text may be to be remembered by Memory.
const rememberedBytes = 512

// Memory remembers the last long text and its key: to compare two texts costs a
// fraction of what a digest does, and callers mostly send what they sent before.
// Its zero value is ready; it is for one goroutine at a time.
type Memory struct {
	key  Key
	text []byte
}

// KeyOf returns what the function of this name does.
func (m *Memory) KeyOf(text []byte) Key {
	switch {
	case len(text) <= keyBytes || len(text) > rememberedBytes:
		return KeyOf(text)
	case !bytes.Equal(text, m.text):
		if m.text == nil {
			m.text = make([]byte, 0, rememberedBytes)
		}
		m.key, m.text = KeyOf(text), append(m.text[:0], text...)
	}
	return m.key
}
