package balance

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// Label is one thing that is known of an endpoint: version = 2.
type Label struct{ Key, Value string }

// Bounds of the labels of an endpoint. What is beyond them is left out.
const (
	// MaxLabels is how many an endpoint may have.
	MaxLabels = 192
	// MaxLabelBytes is how long they may be together.
	MaxLabelBytes = 8192
	maxLabelKey   = 256
	maxLabelValue = 1024
)

// Labels are what is known of an endpoint, in the order of the keys. They are
// comparable: two are equal exactly when all keys and values are.
type Labels string

// NewLabels returns the labels in list, which it sorts; of several with one key
// the first counts. cut says that some were beyond the bounds.
func NewLabels(list []Label) (l Labels, cut bool) {
	slices.SortStableFunc(list, func(a, b Label) int { return cmp.Compare(a.Key, b.Key) })
	size, n := 0, 0
	fits := func(p *Label) bool {
		return p.Key != "" && len(p.Key) <= maxLabelKey && len(p.Value) <= maxLabelValue &&
			!strings.ContainsRune(p.Key, 0) && !strings.ContainsRune(p.Value, 0) &&
			n < MaxLabels && size+len(p.Key)+len(p.Value)+2 <= MaxLabelBytes
	}
	for i := range list {
		switch p := &list[i]; {
		case n > 0 && list[n-1].Key == p.Key:
		case !fits(p):
			cut = true
		default:
			size += len(p.Key) + len(p.Value) + 2
			list[n] = *p
			n++
		}
	}
	var b strings.Builder
	b.Grow(size)
	for i := range n {
		b.WriteString(list[i].Key)
		b.WriteByte(0)
		b.WriteString(list[i].Value)
		b.WriteByte(0)
	}
	return Labels(b.String()), cut
}

// All returns keys and values in the order of the keys.
func (l Labels) All() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		for rest := string(l); rest != ""; {
			key, after, _ := strings.Cut(rest, "\x00")
			value, after, _ := strings.Cut(after, "\x00")
			if !yield(key, value) {
				return
			}
			rest = after
		}
	}
}

// Get returns the value of a key.
func (l Labels) Get(key string) (string, bool) {
	for k, v := range l.All() {
		if k >= key {
			return v, k == key
		}
	}
	return "", false
}

// Has reports whether l has all of want, with the same values.
func (l Labels) Has(want Labels) bool {
	for k, v := range want.All() {
		if got, ok := l.Get(k); !ok || got != v {
			return false
		}
	}
	return true
}

// String returns the labels as people write them: a=1, b=2.
func (l Labels) String() string {
	var words []string
	for k, v := range l.All() {
		words = append(words, k+"="+v)
	}
	return strings.Join(words, ", ")
}
