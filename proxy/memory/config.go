package memory

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Config is the memory budget.
type Config struct {
	// The most memory that the process may take, such as "48MiB" or "1GiB". What is given up as it is neared, and in
	// which order, is told in docs/memory.md. The flag --memory of outrigger run takes precedence. Empty: no budget.
	Budget string `yaml:"budget"`
}

// Least is the smallest budget: below it the program itself has no room.
const Least = 32 << 20

// Validate calls add for a budget that cannot be.
func (c Config) Validate(add func(field, problem string)) {
	if _, err := ParseSize(c.Budget); err != nil {
		add("budget", err.Error())
	}
}

// Bytes returns the budget; 0 for none. Validate says whether it is valid.
func (c Config) Bytes() int64 {
	n, _ := ParseSize(c.Budget)
	return n
}

var units = []struct {
	name  string
	bytes int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}}

// ParseSize reads a budget: a whole number with a unit, or nothing for none.
func ParseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
		if err != nil {
			break
		}
		if n > uint64(math.MaxInt64/u.bytes) {
			return 0, fmt.Errorf("is %q, which is more than there can be", s)
		}
		if b := int64(n) * u.bytes; b >= Least {
			return b, nil
		}
		return 0, fmt.Errorf("is %q; the least is 32MiB, which the program itself needs", s)
	}
	return 0, fmt.Errorf("is %q; write a whole number with a unit (B, kB, KiB, MB, MiB, GB, GiB), such as 48MiB", s)
}
