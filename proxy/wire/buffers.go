package wire

import "sync"

// Buffer sizes. Small holds the head and body of nearly every exchange; Large
// holds the largest head that the default limits allow and is used to move
// long bodies.
const (
	Small = 8 << 10
	Large = 64 << 10
)

var (
	smalls = sync.Pool{New: func() any { return new([Small]byte) }}
	larges = sync.Pool{New: func() any { return new([Large]byte) }}
)

// GetSmall returns a buffer of Small bytes with unspecified content.
func GetSmall() []byte { return smalls.Get().(*[Small]byte)[:] }

// GetLarge returns a buffer of Large bytes with unspecified content.
func GetLarge() []byte { return larges.Get().(*[Large]byte)[:] }

func get(size int) []byte {
	if size == Large {
		return GetLarge()
	}
	return GetSmall()
}

// Put returns a buffer that GetSmall or GetLarge gave. Buffers of any other
// capacity are left to the garbage collector, so a caller may have let append
// replace the buffer. The caller must not use b afterwards.
func Put(b []byte) {
	switch cap(b) {
	case Small:
		smalls.Put((*[Small]byte)(b[:Small]))
	case Large:
		larges.Put((*[Large]byte)(b[:Large]))
	}
}
