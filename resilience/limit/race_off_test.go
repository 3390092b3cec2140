//go:build !race

package limit

// raceEnabled says that the race detector is on.
const raceEnabled = false
