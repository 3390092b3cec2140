package http2

// static is the table of RFC 7541 appendix A. It is read only.
var static = [62]struct{ name, value string }{
	1: {":authority", ""},
	{":method", "GET"},
	{":method", "POST"},
	{":path", "/"},
	{":path", "/index.html"},
	{":scheme", "http"},
	{":scheme", "https"},
	{":status", "200"},
	{":status", "204"},
	{":status", "206"},
	{":status", "304"},
	{":status", "400"},
	{":status", "404"},
	{":status", "500"},
	{"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"},
	{"accept-language", ""},
	{"accept-ranges", ""},
	{"accept", ""},
	{"access-control-allow-origin", ""},
	{"age", ""},
	{"allow", ""},
	{"authorization", ""},
	{"cache-control", ""},
	{"content-disposition", ""},
	{"content-encoding", ""},
	{"content-language", ""},
	{"content-length", ""},
	{"content-location", ""},
	{"content-range", ""},
	{"content-type", ""},
	{"cookie", ""},
	{"date", ""},
	{"etag", ""},
	{"expect", ""},
	{"expires", ""},
	{"from", ""},
	{"host", ""},
	{"if-match", ""},
	{"if-modified-since", ""},
	{"if-none-match", ""},
	{"if-range", ""},
	{"if-unmodified-since", ""},
	{"last-modified", ""},
	{"link", ""},
	{"location", ""},
	{"max-forwards", ""},
	{"proxy-authenticate", ""},
	{"proxy-authorization", ""},
	{"range", ""},
	{"referer", ""},
	{"refresh", ""},
	{"retry-after", ""},
	{"server", ""},
	{"set-cookie", ""},
	{"strict-transport-security", ""},
	{"transfer-encoding", ""},
	{"user-agent", ""},
	{"vary", ""},
	{"via", ""},
	{"www-authenticate", ""},
}

// Positions in static.
const (
	staticAuthority     = 1
	staticMethod        = 2
	staticPath          = 4
	staticScheme        = 6
	staticStatus        = 8
	staticAuthorization = 23
	staticContentLength = 28
	staticCookie        = 32
	staticProxyAuth     = 49
	staticSetCookie     = 55
	staticEntries       = 61
)

// staticName returns the first position of a name that is not a pseudo-header, 0
// if there is none.
func staticName(name []byte) uint8 {
	switch string(name) {
	case "accept-charset":
		return 15
	case "accept-encoding":
		return 16
	case "accept-language":
		return 17
	case "accept-ranges":
		return 18
	case "accept":
		return 19
	case "access-control-allow-origin":
		return 20
	case "age":
		return 21
	case "allow":
		return 22
	case "authorization":
		return 23
	case "cache-control":
		return 24
	case "content-disposition":
		return 25
	case "content-encoding":
		return 26
	case "content-language":
		return 27
	case "content-length":
		return 28
	case "content-location":
		return 29
	case "content-range":
		return 30
	case "content-type":
		return 31
	case "cookie":
		return 32
	case "date":
		return 33
	case "etag":
		return 34
	case "expect":
		return 35
	case "expires":
		return 36
	case "from":
		return 37
	case "if-match":
		return 39
	case "if-modified-since":
		return 40
	case "if-none-match":
		return 41
	case "if-range":
		return 42
	case "if-unmodified-since":
		return 43
	case "last-modified":
		return 44
	case "link":
		return 45
	case "location":
		return 46
	case "max-forwards":
		return 47
	case "proxy-authenticate":
		return 48
	case "proxy-authorization":
		return 49
	case "range":
		return 50
	case "referer":
		return 51
	case "refresh":
		return 52
	case "retry-after":
		return 53
	case "server":
		return 54
	case "set-cookie":
		return 55
	case "strict-transport-security":
		return 56
	case "user-agent":
		return 58
	case "vary":
		return 59
	case "via":
		return 60
	case "www-authenticate":
		return 61
	}
	return 0
}

// entryOverhead is what an entry counts beyond its bytes, RFC 7541 section 4.1.
const entryOverhead = 32

// firstEntries is how many entries a ring has room for at first. It is doubled
// as needed, to at most the 128 that a table of tableSize bytes can hold.
const firstEntries = 16

// entry is a field in a dynamic table. Its memory is used again by the entry that
// takes its place.
type entry struct {
	text []byte // name and value
	name int    // the name's length
	hash uint32 // of name and value; the encoder's
	nam  uint32 // of the name; the encoder's
}

func (e *entry) size() int { return len(e.text) + entryOverhead }

// table is a dynamic table: a ring of entries numbered from 1 as they come.
type table struct {
	ring  []entry // a power of two
	last  uint32  // number of the newest entry
	count uint32
	size  int
	limit int // at most tableSize
}

// evict drops the oldest entries until extra more bytes fit.
func (t *table) evict(extra int) {
	for t.count > 0 && t.size+extra > t.limit {
		t.size -= t.at(t.last - t.count + 1).size()
		t.count--
	}
}

// add enters a field; one larger than the table empties it (RFC 7541 section 4.4).
// name and value must not be of an entry of the table.
func (t *table) add(name, value []byte) *entry {
	size := len(name) + len(value) + entryOverhead
	t.evict(size)
	if size > t.limit {
		return nil
	}
	if int(t.count) == len(t.ring) {
		t.grow()
	}
	t.last++
	t.count++
	t.size += size
	e := t.at(t.last)
	e.text = append(append(e.text[:0], name...), value...)
	e.name = len(name)
	return e
}

// at returns the entry with that number.
func (t *table) at(n uint32) *entry { return &t.ring[n&uint32(len(t.ring)-1)] }

func (t *table) grow() {
	old := *t
	t.ring = make([]entry, max(firstEntries, 2*len(old.ring)))
	for i := range old.count {
		*t.at(old.last - i) = *old.at(old.last - i)
	}
}

func (t *table) setLimit(n int) {
	t.limit = n
	t.evict(0)
}

// live reports whether the entry with that number is still in the table.
func (t *table) live(n uint32) bool { return t.last-n < t.count }
