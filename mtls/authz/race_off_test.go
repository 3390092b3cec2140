//go:build !race

package authz

// raceEnabled: the race detector makes sync.Pool drop things at random.
const raceEnabled = false
