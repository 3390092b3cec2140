package balance

import "math/bits"

// column is one of n columns of an alias table (Walker 1974, Vose 1991), all
// of the same height: its lower part, a fraction primary/2^64, belongs to the
// member at the column's own position, the rest to another. So a member's
// parts together are in proportion to its weight, and to find the owner of a
// point takes one look.
type column struct {
	primary uint64
	other   uint32
}

// newTable returns the alias table of the members' weights, nil when they are
// all the same. It works in whole numbers: with total weight W and n members,
// a member has n x weight to fill columns of height W with; both fit 64 bits.
func newTable(members []Member) []column {
	equal := true
	total := uint64(0)
	for i := range members {
		equal = equal && members[i].Weight == members[0].Weight
		total += uint64(members[i].Weight)
	}
	if equal {
		return nil
	}
	n := len(members)
	table := make([]column, n)
	rest := make([]uint64, n)
	// One slice for two stacks: members with less than a column left to place
	// grow from the front, those with more from the back.
	stack := make([]uint32, n)
	small, large := 0, n
	for i := range members {
		rest[i] = uint64(members[i].Weight) * uint64(n)
		if rest[i] < total {
			stack[small] = uint32(i)
			small++
		} else {
			large--
			stack[large] = uint32(i)
		}
	}
	for small > 0 && large < n {
		small--
		s, l := stack[small], stack[large]
		primary, _ := bits.Div64(rest[s], 0, total) // rest[s] < total
		table[s] = column{primary: primary, other: l}
		if rest[l] -= total - rest[s]; rest[l] < total {
			large++
			stack[small] = l
			small++
		}
	}
	// What is left are members with exactly one column.
	for ; large < n; large++ {
		table[stack[large]] = column{primary: ^uint64(0), other: stack[large]}
	}
	for ; small > 0; small-- {
		table[stack[small-1]] = column{primary: ^uint64(0), other: stack[small-1]}
	}
	return table
}

// byWeight draws a member by weight.
func (p *Picker) byWeight(d *draws) int {
	i := d.below(len(p.members))
	if p.table == nil {
		return i
	}
	if c := &p.table[i]; d.next() >= c.primary {
		return int(c.other)
	}
	return i
}
