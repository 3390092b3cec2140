package ratelimit

import "crypto/sha256"

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
