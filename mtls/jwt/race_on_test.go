//go:build race

package jwt

// raceEnabled: the race detector makes sync.Pool drop things at random.
const raceEnabled = true
