// Package file reads the services and their endpoints from a YAML catalog and follows its changes.
package file

// Config is the section discovery.file.
type Config struct {
	// Path of the catalog, a YAML file. Required. The file is read again when
	// it changes, also when it is replaced by a rename or through the symlinks
	// of a mounted Kubernetes ConfigMap. A broken file keeps the last good one.
	Path string `yaml:"path"`
}

// Default returns the configuration that an empty section means.
func Default() Config { return Config{} }

// Validate calls add once for every mistake, with the YAML name of the field.
func (c Config) Validate(add func(field, problem string)) {
	if c.Path == "" {
		add("path", "is required; name the catalog file")
	}
}
