package config

import (
	"cmp"
	"fmt"
	"strings"
)

// nearest returns the word of known that word was most likely meant to be, or
// "" when none is near: at most a third of its letters changed, added, dropped
// or swapped with their neighbour.
func nearest(word string, known []string) string {
	best, distance := "", max(1, (len(word)+1)/3)+1
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// akin returns the word of known that shares most with word, or "" when none
// shares half of it: its beginning, as consecutive_5xx and
// consecutive_failures, or its last part, as algorithm and balance_algorithm.
func akin(word string, known []string) string {
	word = strings.ToLower(word)
	best, most := "", 0
	for _, k := range known {
		n := 0
		for n < min(len(word), len(k)) && word[n] == k[n] {
			n++
		}
		if strings.HasSuffix(k, "_"+word) || strings.HasSuffix(word, "_"+k) {
			n = max(n, min(len(word), len(k)))
		}
		if n >= 4 && 2*n >= max(len(word), len(k)) && n > most {
			best, most = k, n
		}
	}
	return best
}

// editDistance is the optimal string alignment distance of a and b. Both are
// cut at 64 bytes, which is longer than any key.
func editDistance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	var rows [3][65]int
	before, last, row := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// didYouMean ends a message about an unknown word: with the nearest known one,
// else with all of them when they are few.
func didYouMean(word string, known []string) string {
	if s := cmp.Or(nearest(word, known), akin(word, known)); s != "" {
		return fmt.Sprintf("; did you mean %q?", s)
	}
	if len(known) > 0 && len(known) <= 16 {
		return "; known here: " + strings.Join(known, ", ")
	}
	return ""
}
