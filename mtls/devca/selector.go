package devca

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/mtls"
)

// Entry gives an identity to the callers that all its selectors match.
type Entry struct {
	// ID is the identity, of the server's own trust domain.
	ID mtls.ID `yaml:"id"`
	// Hint is handed to the workload with the SVID, so that one with several can choose.
	Hint string `yaml:"hint"`
	// Selectors must all match; at least one is needed.
	Selectors []Selector `yaml:"selectors"`
}

// Selector is one condition on the calling process, as the kernel reports it.
// Its text form is that of SPIRE's unix workload attestor: unix:uid:1000,
// unix:gid:1000, unix:path:/usr/bin/web (the executable), and, beyond SPIRE,
// unix:pid:4711. It is comparable.
type Selector struct {
	kind   selectorKind
	number int64
	path   string
	// started is when the process of a pid selector began, in clock ticks since
	// boot, so that a later process with the same number is not taken for it.
	started uint64
}

type selectorKind uint8

const (
	byUID selectorKind = iota + 1
	byGID
	byPID
	byExe
)

// UID matches callers of an effective user id.
func UID(uid uint32) Selector { return Selector{kind: byUID, number: int64(uid)} }

// GID matches callers of an effective primary group id.
func GID(gid uint32) Selector { return Selector{kind: byGID, number: int64(gid)} }

// PID matches one process. The process must be running when the entry is
// registered; its successor by the same number does not match.
func PID(pid int) Selector { return Selector{kind: byPID, number: int64(pid)} }

// Exe matches callers by the path of their executable, links resolved.
func Exe(path string) Selector { return Selector{kind: byExe, path: path} }

// ParseSelector reads the text form.
func ParseSelector(s string) (Selector, error) {
	rest, ok := strings.CutPrefix(s, "unix:")
	kind, value, hasValue := strings.Cut(rest, ":")
	if !ok || !hasValue || value == "" {
		return Selector{}, fmt.Errorf("selector %q: write unix:uid:N, unix:gid:N, unix:pid:N or unix:path:/FILE", s)
	}
	switch kind {
	case "uid", "gid", "pid":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return Selector{}, fmt.Errorf("selector %q: %q is not a number of 32 bits", s, value)
		}
		switch kind {
		case "uid":
			return UID(uint32(n)), nil
		case "gid":
			return GID(uint32(n)), nil
		}
		if n == 0 || n > 1<<22 {
			return Selector{}, fmt.Errorf("selector %q: a process id is between 1 and %d", s, 1<<22)
		}
		return PID(int(n)), nil
	case "path":
		if !filepath.IsAbs(value) {
			return Selector{}, fmt.Errorf("selector %q: the path must be absolute", s)
		}
		return Exe(value), nil
	}
	return Selector{}, fmt.Errorf("selector %q: unknown kind %q; use uid, gid, pid or path", s, kind)
}

// String returns the text form.
func (s Selector) String() string {
	switch s.kind {
	case byUID:
		return "unix:uid:" + strconv.FormatInt(s.number, 10)
	case byGID:
		return "unix:gid:" + strconv.FormatInt(s.number, 10)
	case byPID:
		return "unix:pid:" + strconv.FormatInt(s.number, 10)
	case byExe:
		return "unix:path:" + s.path
	}
	return ""
}

// MarshalText implements encoding.TextMarshaler.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Selector) UnmarshalText(b []byte) error {
	parsed, err := ParseSelector(string(b))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// bind completes the selector with what must be learnt when it is registered.
func (s Selector) bind() (Selector, error) {
	switch s.kind {
	case byPID:
		started, err := processStart(int32(s.number))
		if err != nil {
			return s, fmt.Errorf("%s: the process is not running: %w", s, err)
		}
		s.started = started
	case byExe:
		// A binary that is installed later is matched by its path as written.
		if resolved, err := filepath.EvalSymlinks(s.path); err == nil {
			s.path = resolved
		}
	case byUID, byGID:
	default:
		return s, errors.New("empty selector")
	}
	return s, nil
}

// dead reports whether the selector can never match again.
func (s Selector) dead() bool {
	if s.kind != byPID {
		return false
	}
	started, err := processStart(int32(s.number))
	return err != nil || started != s.started
}

func (s Selector) matches(c caller) bool {
	switch s.kind {
	case byUID:
		return int64(c.uid) == s.number
	case byGID:
		return int64(c.gid) == s.number
	case byPID:
		return int64(c.pid) == s.number && c.started != 0 && c.started == s.started
	case byExe:
		return c.exe != "" && c.exe == s.path
	}
	return false
}

// processStart returns field 22 of /proc/PID/stat (proc(5)).
func processStart(pid int32) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the command in parentheses and may hold anything, so
	// counting begins after the last closing one.
	_, after, ok := cutLast(string(b), ")")
	fields := strings.Fields(after)
	const startTime = 22 - 3
	if !ok || len(fields) <= startTime {
		return 0, fmt.Errorf("/proc/%d/stat: unexpected form", pid)
	}
	return strconv.ParseUint(fields[startTime], 10, 64)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
