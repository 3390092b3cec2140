//go:build race

package telemetry

// raceEnabled: the race detector makes sync.Pool drop things at random.
const raceEnabled = true
