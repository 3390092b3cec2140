//go:build !race

package outcomes

// raceEnabled: the race detector allocates by itself.
const raceEnabled = false
