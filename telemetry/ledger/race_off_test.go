//go:build !race

package ledger

// raceEnabled: the race detector makes sync.Pool drop things at random.
const raceEnabled = false
