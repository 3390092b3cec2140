// Package cgroup reads how much memory the control group of this process allows, so that the runtime can be told.
package cgroup

import (
	"bufio"
	"bytes"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// MemoryLimit returns the least memory limit, in bytes, of the process' control
// group and those above it, and the file that says so. 0 means that there is
// none. fsys is the root of the file system, os.DirFS("/") but in tests.
//
// Both versions are read (cgroups(7)): memory.max and memory.high of version 2,
// beyond which the kernel kills and slows down, and memory.limit_in_bytes of
// version 1. What cannot be read counts as no limit.
func MemoryLimit(fsys fs.FS) (limit int64, file string) {
	own, err := fs.ReadFile(fsys, "proc/self/cgroup")
	if err != nil {
		return 0, ""
	}
	mounts, err := fs.ReadFile(fsys, "proc/self/mountinfo")
	if err != nil {
		return 0, ""
	}
	for _, h := range hierarchies(mounts) {
		group, ok := groupOf(own, h.version)
		if !ok {
			continue
		}
		for dir := h.dir(group); ; dir = path.Dir(dir) {
			for _, name := range h.files() {
				f := path.Join(dir, name)
				if n := read(fsys, f); n > 0 && (limit == 0 || n < limit) {
					limit, file = n, f
				}
			}
			if len(dir) <= len(h.mount) || dir == "/" {
				break
			}
		}
	}
	return limit, file
}

// hierarchy is a mounted control group file system that may have memory limits.
type hierarchy struct {
	version int
	root    string // the group that is seen at mount
	mount   string
}

func (h hierarchy) files() []string {
	if h.version == 2 {
		return []string{"memory.max", "memory.high"}
	}
	return []string{"memory.limit_in_bytes"}
}

// dir is where group is seen. In a container that sees only a part of the
// hierarchy it may be told by a name from outside: then that part's top counts.
func (h hierarchy) dir(group string) string {
	if rest, ok := strings.CutPrefix(group, strings.TrimSuffix(h.root, "/")); ok && (rest == "" || rest[0] == '/') {
		return path.Join(h.mount, rest)
	}
	return h.mount
}

// hierarchies finds the mounts in the text of mountinfo, proc_pid_mountinfo(5).
func hierarchies(mountinfo []byte) (list []hierarchy) {
	lines := bufio.NewScanner(bytes.NewReader(mountinfo))
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		h := hierarchy{root: f[3], mount: f[4]}
		switch {
		case g[0] == "cgroup2":
			h.version = 2
		case g[0] == "cgroup" && has(g[2], "memory"):
			h.version = 1
		default:
			continue
		}
		list = append(list, h)
	}
	return list
}

// groupOf returns the group of the process in the hierarchy that may limit
// memory, from the text of /proc/self/cgroup.
func groupOf(own []byte, version int) (group string, ok bool) {
	lines := bufio.NewScanner(bytes.NewReader(own))
	for lines.Scan() {
		f := strings.SplitN(lines.Text(), ":", 3)
		if len(f) != 3 {
			continue
		}
		if version == 2 && f[0] == "0" && f[1] == "" || version == 1 && has(f[1], "memory") {
			return path.Clean("/" + f[2]), true
		}
	}
	return "", false
}

func has(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// none is from where on a figure stands for no limit: version 1 says the largest
// multiple of a page that fits.
const none = 1 << 60

func read(fsys fs.FS, file string) int64 {
	b, err := fs.ReadFile(fsys, strings.TrimPrefix(file, "/"))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n <= 0 || n >= none {
		return 0 // "max"
	}
	return n
}
