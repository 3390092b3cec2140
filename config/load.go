package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
)

// MaxFileBytes is the longest configuration that Load and Parse accept.
const MaxFileBytes = 1 << 20

// Loaded is a valid configuration with where each of its values came from.
type Loaded struct {
	// Config has every default filled in. It must not be changed.
	Config *Config
	// File is the name the configuration was loaded under.
	File string
	// Digest is the hex SHA-256 of the file's bytes, which names this version.
	Digest string

	origins origins
}

// Load reads the configuration in the file at path. The error is a Problems
// with every mistake in it, also when the file cannot be read.
func Load(path string) (*Loaded, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// readFile reads as much of a file as can be parsed; the error is a Problems.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	return data, nil
}

func unreadable(path string, err error) Problems {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		err = perr.Err
	}
	return Problems{{Position: Position{File: path, Line: 1, Column: 1}, Message: fmt.Sprintf("cannot be read: %v", err)}}
}

// Parse reads a configuration from data. file is the name used in positions.
// The error is a Problems with every mistake, in the order of the file.
func Parse(file string, data []byte) (*Loaded, error) {
	root, problems := readNode(file, data)
	if root == nil {
		if len(problems) == 0 {
			problems = Problems{{Position: Position{File: file, Line: 1, Column: 1}, Message: "is empty; the least is service: {name: NAME}"}}
		}
		return nil, problems.sorted()
	}
	c := Default()
	d := &decoder{origins: origins{}, problems: problems}
	d.section(root, reflect.ValueOf(&c).Elem(), "")
	if c.Inbound.Protocol == "" {
		d.origins["inbound.protocol"] = Origin{Position: d.origins["service.protocol"].Position, Via: "service.protocol"}
	}
	c.derive()
	check := func(path, problem string) {
		for _, w := range d.wrong {
			if within(path, w) || within(w, path) {
				return
			}
		}
		d.problems = append(d.problems, Problem{Position: d.origins.nearest(file, path), Path: path, Message: problem})
	}
	c.Validate(check)
	c.checkWritten(d.origins, check)
	if len(d.problems) > 0 {
		return nil, d.problems.withoutInherited(d.origins).sorted()
	}
	sum := sha256.Sum256(data)
	return &Loaded{Config: &c, File: file, Digest: hex.EncodeToString(sum[:]), origins: d.origins}, nil
}

// withoutInherited leaves out what is said of an upstream's policy when the
// policy "*" has the same mistake and the upstream's only took it over.
func (ps Problems) withoutInherited(o origins) Problems {
	type mistake struct{ rest, message string }
	common := map[mistake]bool{}
	for _, p := range ps {
		if service, rest, ok := splitPolicy(p.Path); ok && service == AnyService {
			common[mistake{rest, p.Message}] = true
		}
	}
	return slices.DeleteFunc(ps, func(p Problem) bool {
		service, rest, ok := splitPolicy(p.Path)
		_, own := o[p.Path]
		return ok && service != AnyService && !own && common[mistake{rest, p.Message}]
	})
}

// Origin returns where the value at path came from: "default" for a path that
// is not in the file.
func (l *Loaded) Origin(path string) Origin { return l.origins.of(path) }

// Problem describes a mistake in the value at path that only showed when the
// configuration was put to use, at the place where it stands in the file.
func (l *Loaded) Problem(path, message string) Problem {
	return Problem{Position: l.origins.nearest(l.File, path), Path: path, Message: message}
}
