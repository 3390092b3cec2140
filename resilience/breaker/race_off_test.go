//go:build !race

package breaker

// raceEnabled says that the race detector is on.
const raceEnabled = false
