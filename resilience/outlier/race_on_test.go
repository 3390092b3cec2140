//go:build race

package outlier

const raceEnabled = true
