package replay

// pool holds records that are used again, each at one place for good. A Ref
// has the generation of the record's use, so that an event for an earlier one
// finds nothing.
type pool[T any] struct {
	records []*slot[T]
	spare   []uint32
}

type slot[T any] struct {
	record     T
	generation uint32 // odd while in use
}

// The generation has fewer bits than a word so that a Ref can be shifted by
// the kind of an event.
const generationMask = 1<<(32-fireBits) - 1

// take returns a record as the last user left it, and its Ref.
func (p *pool[T]) take() (*T, Ref) {
	var index uint32
	if n := len(p.spare); n > 0 {
		index = p.spare[n-1]
		p.spare = p.spare[:n-1]
	} else {
		index = uint32(len(p.records))
		p.records = append(p.records, &slot[T]{})
	}
	s := p.records[index]
	s.generation = (s.generation + 1) & generationMask
	return &s.record, refOf(index, s.generation)
}

// get returns the record in use under ref, or nil.
func (p *pool[T]) get(ref Ref) *T {
	index, generation := ref.parts()
	if int(index) >= len(p.records) || p.records[index].generation != generation || generation&1 == 0 {
		return nil
	}
	return &p.records[index].record
}

// retire ends the use of a record: its Ref names nothing from now on.
func (p *pool[T]) retire(ref Ref) {
	index, _ := ref.parts()
	p.records[index].generation = (p.records[index].generation + 1) & generationMask
}

// free lets take return a record that was retired.
func (p *pool[T]) free(ref Ref) {
	index, _ := ref.parts()
	p.spare = append(p.spare, index)
}

// used is how many records are in use.
func (p *pool[T]) used() int { return len(p.records) - len(p.spare) }
