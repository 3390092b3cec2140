package config

// Normalize says into what form requests are brought, in Envoy's sense.
type Normalize struct {
	// Dot segments are removed (/a/../b becomes /b), escapes of letters, digits and -._~ undone, backslashes made
	// slashes (RFC 3986 section 6.2.2). A path with an escaped NUL is answered with 400.
	Path bool `yaml:"path"`
	// Repeated slashes are made one.
	MergeSlashes bool `yaml:"merge_slashes"`
	// What becomes of paths with an escaped slash or backslash (%2F, %5C). keep: they stay. reject: 400. redirect: 307 to
	// the path with them undone. forward: they are undone.
	EscapedSlashes EscapedSlashes `yaml:"escaped_slashes" enum:"keep,reject,redirect,forward"`
	// What becomes of fields with an underscore in their names, which some applications take for a hyphen. allow: they
	// stay. reject: 400. drop: such fields are left out, and no rule or route sees them.
	Underscores Underscores `yaml:"underscores" enum:"allow,reject,drop"`
}

// EscapedSlashes is what becomes of paths with an escaped slash.
type EscapedSlashes string

// The ways.
const (
	EscapedSlashesKeep     EscapedSlashes = "keep"
	EscapedSlashesReject   EscapedSlashes = "reject"
	EscapedSlashesRedirect EscapedSlashes = "redirect"
	EscapedSlashesForward  EscapedSlashes = "forward"
)

// Underscores is what becomes of fields with an underscore in their names.
type Underscores string

// The ways.
const (
	UnderscoresAllow  Underscores = "allow"
	UnderscoresReject Underscores = "reject"
	UnderscoresDrop   Underscores = "drop"
)
