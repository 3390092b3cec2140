package outcomes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// files are the file that is written and the older ones beside it.
type files struct {
	cfg   Config
	path  string
	f     *os.File
	size  int64
	begun time.Duration // when the file was; meaningful once it is not fresh
	fresh bool          // nothing was written to it yet
	old   []oldFile     // the oldest first
	lock  *os.File
}

type oldFile struct {
	seq  uint64
	size int64
}

// openFiles takes cfg.Path for this process. What an earlier one left there
// becomes the newest of the older files when the first record comes.
func openFiles(cfg Config) (*files, error) {
	s := &files{cfg: cfg, path: cfg.Path, fresh: true}
	dir := filepath.Dir(cfg.Path)
	var err error
	// A file of its own, as the one that is written is renamed.
	if s.lock, err = os.OpenFile(cfg.Path+".lock", os.O_CREATE|os.O_RDWR, 0o640); err != nil {
		return nil, fmt.Errorf("cannot keep outcomes in %s: %w", dir, err)
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = s.lock.Close()
		return nil, fmt.Errorf("%s is written by another process; give each proxy a path of its own", cfg.Path)
	}
	if s.old, err = olderFiles(cfg.Path); err != nil {
		_ = s.lock.Close()
		return nil, fmt.Errorf("cannot keep outcomes in %s: %w", dir, err)
	}
	if s.f, err = os.OpenFile(cfg.Path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640); err == nil {
		var info fs.FileInfo
		if info, err = s.f.Stat(); err == nil && !info.Mode().IsRegular() {
			err = errors.New("it is not a regular file")
			_ = s.f.Close()
		} else if err == nil {
			s.size = info.Size()
		}
	}
	if err != nil {
		_ = s.lock.Close()
		return nil, fmt.Errorf("cannot write %s: %w", cfg.Path, err)
	}
	return s, nil
}

// seqDigits are at least so many in the name of an older file.
const seqDigits = 6

func oldName(path string, seq uint64) string { return fmt.Sprintf("%s.%0*d", path, seqDigits, seq) }

// olderFiles returns those beside path, the oldest first.
func olderFiles(path string) ([]oldFile, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var list []oldFile
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if !ok || len(rest) < seqDigits || !e.Type().IsRegular() {
			continue
		}
		seq, err := strconv.ParseUint(rest, 10, 64)
		if err != nil {
			continue
		}
		if info, err := e.Info(); err == nil {
			list = append(list, oldFile{seq, info.Size()})
		}
	}
	slices.SortFunc(list, func(a, b oldFile) int { return int(min(max(int64(a.seq)-int64(b.seq), -1), 1)) })
	return list, nil
}

// Files returns the names of a log's files in the order in which they were
// written: those beside path, and path itself. An older file stands for itself.
func Files(path string) ([]string, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	old, err := olderFiles(path)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(old)+1)
	for _, o := range old {
		names = append(names, oldName(path, o.seq))
	}
	return append(names, path), nil
}

// due reports whether another file is to be begun before more is written.
func (s *files) due(now time.Duration) bool {
	return s.fresh || s.cfg.RotateAge > 0 && now-s.begun >= s.cfg.RotateAge
}

// fits reports whether so many bytes more may go into the present file.
func (s *files) fits(n int) bool { return s.size+int64(n) <= s.cfg.RotateBytes }

// total is the size of all files.
func (s *files) total() int64 {
	sum := s.size
	for _, o := range s.old {
		sum += o.size
	}
	return sum
}

// rotate makes the present file the newest of the older ones, removes the oldest
// so that all keep within their bound however the new one grows, and begins it.
// On an error the present file goes on.
func (s *files) rotate(now time.Duration) error {
	if s.size > 0 {
		seq := uint64(1)
		if n := len(s.old); n > 0 {
			seq = s.old[n-1].seq + 1
		}
		if err := os.Rename(s.path, oldName(s.path, seq)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.old = append(s.old, oldFile{seq, s.size})
	}
	s.size, s.fresh, s.begun = 0, false, now
	if err := s.trim(); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o640)
	if err != nil {
		s.fresh = true // so that it is tried again
		return err
	}
	_ = s.f.Close()
	s.f = f
	return nil
}

// trim removes the oldest files until there is room for a whole new one.
func (s *files) trim() error {
	for len(s.old) > 0 && s.total()-s.size+s.cfg.RotateBytes > s.cfg.MaxBytes {
		if err := os.Remove(oldName(s.path, s.old[0].seq)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.old = s.old[1:]
	}
	return nil
}

// append writes b whole or, as far as it can see to that, not at all.
func (s *files) append(b []byte) error {
	if s.fresh || s.size+int64(len(b)) > s.cfg.RotateBytes {
		return fmt.Errorf("%s cannot be begun anew and is full", s.path)
	}
	if s.size == 0 {
		b = append(append([]byte(fileHead), Format), b...)
	}
	n, err := s.f.Write(b)
	if err != nil && n > 0 {
		if s.f.Truncate(s.size) != nil {
			s.size += int64(n)
		}
		return err
	}
	s.size += int64(n)
	return err
}

func (s *files) close() {
	_ = s.f.Close()
	_ = s.lock.Close() // and with it the lock is given up
}
