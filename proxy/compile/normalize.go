package compile

import (
	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

// normalization is nil where requests are taken as they come.
func normalization(c *config.Normalize) *http1.Normalization {
	n := http1.Normalization{Path: c.Path, MergeSlashes: c.MergeSlashes}
	switch c.EscapedSlashes {
	case config.EscapedSlashesReject:
		n.Slashes = http1.RejectSlashes
	case config.EscapedSlashesRedirect:
		n.Slashes = http1.RedirectSlashes
	case config.EscapedSlashesForward:
		n.Slashes = http1.ForwardSlashes
	case config.EscapedSlashesKeep:
	}
	switch c.Underscores {
	case config.UnderscoresReject:
		n.Underscores = http1.RejectUnderscores
	case config.UnderscoresDrop:
		n.Underscores = http1.DropUnderscores
	case config.UnderscoresAllow:
	}
	if n == (http1.Normalization{}) {
		return nil
	}
	return &n
}
