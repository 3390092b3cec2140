//go:build race

package balance

// raceEnabled says that the race detector is on.
const raceEnabled = true
