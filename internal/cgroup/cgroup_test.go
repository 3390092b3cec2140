package cgroup

import (
	"os"
	"testing"
	"testing/fstest"
)

const (
	mount2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	mount1 = "33 23 0:29 / /sys/fs/cgroup/memory rw shared:8 - cgroup cgroup rw,memory\n34 23 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	// A container without a cgroup namespace: it sees its own part at the mount.
	mountPart = "40 23 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
)

func TestMemoryLimit(t *testing.T) {
	for name, c := range map[string]struct {
		own, mounts string
		files       map[string]string
		limit       int64
		file        string
	}{
		"no proc":   {},
		"v2":        {"0::/app\n", mount2, map[string]string{"app/memory.max": "67108864\n"}, 64 << 20, "/sys/fs/cgroup/app/memory.max"},
		"v2 max":    {"0::/app\n", mount2, map[string]string{"app/memory.max": "max\n", "app/memory.high": "max\n"}, 0, ""},
		"v2 high":   {"0::/app\n", mount2, map[string]string{"app/memory.max": "67108864\n", "app/memory.high": "33554432\n"}, 32 << 20, "/sys/fs/cgroup/app/memory.high"},
		"v2 parent": {"0::/pod/app\n", mount2, map[string]string{"pod/app/memory.max": "max\n", "pod/memory.max": "1048576\n"}, 1 << 20, "/sys/fs/cgroup/pod/memory.max"},
		"v2 child of a stricter parent": {
			"0::/pod/app\n", mount2,
			map[string]string{"pod/app/memory.max": "2097152\n", "pod/memory.max": "1048576\n"},
			1 << 20, "/sys/fs/cgroup/pod/memory.max",
		},
		"v2 in a namespace": {"0::/\n", mount2, map[string]string{"memory.max": "1048576\n"}, 1 << 20, "/sys/fs/cgroup/memory.max"},
		"v1":                {"4:memory:/app\n0::/\n", mount1, map[string]string{"memory/app/memory.limit_in_bytes": "1048576\n"}, 1 << 20, "/sys/fs/cgroup/memory/app/memory.limit_in_bytes"},
		"v1 unlimited":      {"4:memory:/app\n", mount1, map[string]string{"memory/app/memory.limit_in_bytes": "9223372036854771712\n"}, 0, ""},
		"v1 named with others": {
			"4:hugetlb,memory:/app\n", mount1,
			map[string]string{"memory/app/memory.limit_in_bytes": "4096\n"},
			4096, "/sys/fs/cgroup/memory/app/memory.limit_in_bytes",
		},
		"v1 part":          {"4:memory:/docker/abc\n", mountPart, map[string]string{"memory/memory.limit_in_bytes": "8192\n"}, 8192, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
		"v1 part, deeper":  {"4:memory:/docker/abc/x\n", mountPart, map[string]string{"memory/x/memory.limit_in_bytes": "8192\n"}, 8192, "/sys/fs/cgroup/memory/x/memory.limit_in_bytes"},
		"v1 part, outside": {"4:memory:/docker/abcd\n", mountPart, map[string]string{"memory/memory.limit_in_bytes": "8192\n"}, 8192, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
		"both, v1 has it":  {"4:memory:/app\n0::/app\n", mount1 + mount2, map[string]string{"memory/app/memory.limit_in_bytes": "8192\n"}, 8192, "/sys/fs/cgroup/memory/app/memory.limit_in_bytes"},
		"nonsense":         {"::\nx\n0::/app\n", "x\n - \n" + mount2, map[string]string{"app/memory.max": "many\n", "app/memory.high": "-5\n"}, 0, ""},
		"no group":         {"1:name=systemd:/\n", mount1 + mount2, map[string]string{"memory.max": "1\n"}, 0, ""},
		"only CPU mounted": {"4:memory:/app\n", "34 23 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", nil, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			if c.own != "" {
				fsys["proc/self/cgroup"] = &fstest.MapFile{Data: []byte(c.own)}
				fsys["proc/self/mountinfo"] = &fstest.MapFile{Data: []byte(c.mounts)}
			}
			for f, text := range c.files {
				fsys["sys/fs/cgroup/"+f] = &fstest.MapFile{Data: []byte(text)}
			}
			if limit, file := MemoryLimit(fsys); limit != c.limit || file != c.file {
				t.Errorf("%d by %q, want %d by %q", limit, file, c.limit, c.file)
			}
		})
	}
}

// Whatever this machine has, it is read without harm.
func TestMemoryLimitHere(t *testing.T) {
	limit, file := MemoryLimit(os.DirFS("/"))
	if limit < 0 || (limit > 0) != (file != "") {
		t.Errorf("%d by %q", limit, file)
	}
	t.Logf("%d by %q", limit, file)
}

func FuzzMemoryLimit(f *testing.F) {
	f.Add("0::/app\n", mount2)
	f.Add("4:memory:/docker/abc\n", mountPart)
	f.Add("4:memory:/../..\n", mount1)
	f.Fuzz(func(t *testing.T, own, mounts string) {
		MemoryLimit(fstest.MapFS{
			"proc/self/cgroup":    &fstest.MapFile{Data: []byte(own)},
			"proc/self/mountinfo": &fstest.MapFile{Data: []byte(mounts)},
		})
	})
}
