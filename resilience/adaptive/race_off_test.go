//go:build !race

package adaptive

// raceEnabled says that the race detector is on.
const raceEnabled = false
