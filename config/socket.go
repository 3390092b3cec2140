package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// SocketPath returns the path of an address that is a Unix socket, "unix:/PATH" or
// "unix:///PATH"; ok is false of other addresses.
func SocketPath(address string) (path string, ok bool) {
	path, ok = strings.CutPrefix(address, "unix:")
	if p, slashes := strings.CutPrefix(path, "//"); slashes {
		path = p
	}
	return path, ok
}

// Called reports whether others call the service: the application listens.
func (s *Service) Called() bool {
	_, socket := SocketPath(s.Address)
	return s.Port != 0 || socket
}

// maxSocketPath is the longest path of a Unix socket in bytes (sun_path in
// linux/un.h, less the 0 at its end).
const maxSocketPath = 107

// CheckSocketPath says what is wrong with the path of a Unix socket.
func CheckSocketPath(path string) error {
	switch {
	case path == "" || path[0] != '/' || filepath.Clean(path) != path || strings.ContainsRune(path, 0):
		return errors.New("is a Unix socket without a whole path; write it from the root and without detours, such as /run/app.sock")
	case len(path) > maxSocketPath:
		return fmt.Errorf("has a path of %d bytes; Unix sockets allow %d, use a shorter directory", len(path), maxSocketPath)
	}
	return nil
}

// SocketPermissions reads the permissions of a Unix socket's file: octal digits,
// such as "0660". Of an empty text they are 0.
func SocketPermissions(text string) (fs.FileMode, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n == 0 || n > 0o777 {
		return 0, fmt.Errorf("is %s; write the permissions in octal digits, such as \"0660\"", quoteWord(text))
	}
	return fs.FileMode(n), nil
}

// applicationSocket checks the Unix socket on which the application listens. It
// reports false where it listens on none.
func (v *validator) applicationSocket() bool {
	s := &v.Service
	path, is := SocketPath(s.Address)
	if !is {
		return false
	}
	if err := CheckSocketPath(path); err != nil {
		v.say("service.address", "%v", err)
	}
	if s.Port != 0 {
		v.say("service.port", "is %d beside a Unix socket, %s; remove one of them", s.Port, s.Address)
	}
	return true
}

// sockets checks the Unix sockets that upstreams listen on, and that no two have
// one path.
func (v *validator) sockets() {
	taken := map[string]string{}
	for i := range v.Outbound.Upstreams {
		u := &v.Outbound.Upstreams[i]
		at := joinIndex("outbound.upstreams", i)
		path, is := SocketPath(u.Listen)
		switch {
		case u.SocketMode != "" && !is:
			v.say(at+".socket_mode", "has no effect: listen is no Unix socket; write listen: unix:/PATH, or remove it")
		case u.SocketMode != "":
			if _, err := SocketPermissions(u.SocketMode); err != nil {
				v.say(at+".socket_mode", "%v", err)
			}
		}
		if !is {
			continue
		}
		if err := CheckSocketPath(path); err != nil {
			v.say(at+".listen", "%v", err)
		} else if before, dup := taken[path]; dup {
			v.say(at+".listen", "is unix:%s, which %s already takes", path, before)
		} else {
			taken[path] = at + ".listen"
		}
	}
}
