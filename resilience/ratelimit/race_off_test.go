//go:build !race

package ratelimit

// raceEnabled says that the race detector is on.
const raceEnabled = false
