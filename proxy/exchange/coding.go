package exchange

import "github.com/outrigger-mesh/outrigger/proxy/http1"

// chunkOverhead is more than the framing of one chunk and of the last one.
const chunkOverhead = 32

// codable is how much chunked input always fits into out again: a chunk takes
// no more than it did, but the parts of one that was split need size lines of
// their own, and trailers may come behind.
func codable(b, out []byte) []byte {
	return b[:min(len(b), cap(out)-http1.DefaultTrailerBytes-2*chunkOverhead)]
}

// recode decodes chunked input and appends it to out, coded again in the
// plainest way, or bare. The last chunk is left to the caller.
func recode(in *http1.ChunkReader, b, out []byte, coded bool) (used int, res []byte, data uint64, done bool, err error) {
	for used < len(b) && !done {
		k, part, end, err := in.Next(b[used:])
		if err != nil {
			return used, out, data, false, err
		}
		if coded {
			out = http1.AppendChunk(out, part)
		} else {
			out = append(out, part...)
		}
		data += uint64(len(part))
		used, done = used+k, end
	}
	return used, out, data, done, nil
}
