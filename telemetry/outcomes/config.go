package outcomes

import (
	"fmt"
	"strings"
	"time"
)

// Config says where outcomes are kept and how many.
type Config struct {
	// The file to write, such as /var/lib/outrigger/outcomes; older ones stand beside it as outcomes.000001 and so on.
	// Its directory must exist. Empty: no outcomes are kept.
	Path string `yaml:"path"`
	// The most that all the files take, in bytes; the oldest is removed first. About 30 bytes a request.
	MaxBytes int64 `yaml:"max_bytes"`
	// At what size in bytes another file is begun.
	RotateBytes int64 `yaml:"rotate_bytes"`
	// After what time another file is begun. 0: by size alone.
	RotateAge time.Duration `yaml:"rotate_age"`
}

// Bounds of Config.RotateBytes.
const (
	LeastRotateBytes = 1 << 20
	MostRotateBytes  = 1 << 30
)

// Default keeps nothing; with a path, at most 256 MiB in files of 32 MiB or an hour.
func Default() Config {
	return Config{MaxBytes: 256 << 20, RotateBytes: 32 << 20, RotateAge: time.Hour}
}

// Validate calls add for each value that cannot be.
func (c Config) Validate(add func(field, problem string)) {
	if strings.HasSuffix(c.Path, "/") {
		add("path", "is a directory; write a file's name behind it, such as outcomes")
	}
	if c.RotateBytes < LeastRotateBytes || c.RotateBytes > MostRotateBytes {
		add("rotate_bytes", fmt.Sprintf("is %d; must be from %d to %d", c.RotateBytes, LeastRotateBytes, MostRotateBytes))
	} else if c.MaxBytes < 2*c.RotateBytes {
		add("max_bytes", fmt.Sprintf("is %d; must be at least %d, for two files of rotate_bytes", c.MaxBytes, 2*c.RotateBytes))
	}
	if c.RotateAge != 0 && c.RotateAge < time.Second {
		add("rotate_age", "must be at least 1s; 0 begins a new file by size alone")
	}
}
