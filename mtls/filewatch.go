package mtls

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// fileWatch tells of changes in the directories that decide what some files
// hold: theirs, and each one in which a symbolic link on the way to them lies.
// Directories are watched because a file replaced by rename or through a link
// takes a watch on the file with it. A nil *fileWatch tells of nothing.
type fileWatch struct {
	watcher *fsnotify.Watcher
	paths   []string
	dirs    map[string]bool
}

func newFileWatch(paths []string) (*fileWatch, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &fileWatch{watcher: w, paths: paths, dirs: map[string]bool{}}, nil
}

func (w *fileWatch) close() {
	if w != nil {
		w.watcher.Close()
	}
}

func (w *fileWatch) events() <-chan fsnotify.Event {
	if w == nil {
		return nil
	}
	return w.watcher.Events
}

func (w *fileWatch) errors() <-chan error {
	if w == nil {
		return nil
	}
	return w.watcher.Errors
}

// follow watches the directories that matter now and forgets the others. A
// directory that does not exist is tried again at the next call.
func (w *fileWatch) follow() {
	if w == nil {
		return
	}
	now := map[string]bool{}
	for _, p := range w.paths {
		linkDirs(p, now)
	}
	for dir := range w.dirs {
		if !now[dir] {
			// The error only says that the kernel dropped the watch already.
			_ = w.watcher.Remove(dir)
			delete(w.dirs, dir)
		}
	}
	for dir := range now {
		// Added again even when it is known: the directory may be another one by
		// the same name.
		if w.watcher.Add(dir) == nil {
			w.dirs[dir] = true
		}
	}
}

// maxLinks is how many symbolic links are followed, as in Linux's own limit.
const maxLinks = 40

// linkDirs adds to dirs the directory of every symbolic link met while path is
// resolved, and the directory of the file at the end.
func linkDirs(path string, dirs map[string]bool) {
	path, err := filepath.Abs(path)
	if err != nil {
		return
	}
	at, rest := "/", strings.TrimPrefix(path, "/")
	for links := 0; rest != ""; {
		name, tail, _ := strings.Cut(rest, "/")
		here := filepath.Join(at, name)
		if tail == "" {
			dirs[at] = true
		}
		target, err := os.Readlink(here)
		if err != nil {
			// No link, or nothing there yet.
			at, rest = here, tail
			continue
		}
		dirs[at] = true
		if links++; links > maxLinks {
			return
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(at, target)
		}
		at, rest = "/", strings.TrimPrefix(filepath.Join(target, tail), "/")
	}
}
