//go:build race

package queue

// raceEnabled says that the race detector is on.
const raceEnabled = true
