package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxDepth is how deep lists and mappings may nest. A configuration needs
	// about eight levels.
	maxDepth = 32
	// maxNodes is how many values a document may have once its aliases are
	// expanded. It stops the expansion of aliases to aliases.
	maxNodes = 100_000
)

// kind is the type of a node.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindInt
	kindFloat
	kindString
	kindMapping
	kindSequence
)

// String returns the kind in the words of an error message.
func (k kind) String() string {
	return [...]string{"nothing", "true or false", "a whole number", "a number", "text", "a section of keys", "a list"}[k]
}

// node is one value of the document: plain, with aliases and merge keys
// already resolved.
type node struct {
	kind    kind
	text    string // a scalar as written, without quotes
	pos     Position
	entries []entry // of a mapping, in the order of the file, without merged duplicates
	repeats []entry // keys of a mapping given more than once, from the second on
	items   []*node // of a sequence
}

// entry is one key of a mapping with its value.
type entry struct {
	key   string
	pos   Position
	value *node
}

// reader turns the parser's tree into nodes.
type reader struct {
	file     string
	problems Problems
	anchors  map[string]ast.Node
	open     map[string]bool // anchors being expanded, to refuse one that contains itself
	nodes    int
}

// readNode parses data into one tree. The tree is nil when the document is
// empty or the problems make it unusable.
func readNode(file string, data []byte) (*node, Problems) {
	r := &reader{file: file, anchors: map[string]ast.Node{}, open: map[string]bool{}}
	if len(data) > MaxFileBytes {
		r.add(nil, fmt.Sprintf("is longer than %d bytes, which no configuration needs to be", MaxFileBytes))
		return nil, r.problems
	}
	if pos, ok := invalidText(data); !ok {
		pos.File = file
		return nil, Problems{{Position: pos, Message: "is not text in UTF-8: control characters and other encodings are refused"}}
	}
	f := r.parse(string(data))
	if f == nil {
		return nil, r.problems
	}
	var body ast.Node
	for _, doc := range f.Docs {
		if doc.Body == nil {
			continue
		}
		if doc.Body.Type() == ast.DirectiveType || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			start := doc.Start
			if start == nil {
				start = doc.Body.GetToken()
			}
			r.add(start, "starts a second document; a file holds one")
			break
		}
		body = doc.Body
	}
	if body == nil {
		return nil, r.problems
	}
	return r.convert(body, 0), r.problems
}

// invalidText finds the first byte that is no UTF-8 text or a control
// character other than tab, CR and LF.
func invalidText(data []byte) (Position, bool) {
	line, column := 1, 1
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && n <= 1 || c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f {
			return Position{Line: line, Column: column}, false
		}
		column++
		if c == '\n' {
			line, column = line+1, 1
		}
		i += n
	}
	return Position{}, true
}

// parse runs the YAML parser. It is a library that was written for documents
// of good will: nesting is bounded before it sees the tokens, and what it
// panics over is reported as a syntax error.
func (r *reader) parse(text string) (f *ast.File) {
	defer func() {
		if p := recover(); p != nil {
			f = nil
			r.add(nil, "is not YAML that can be parsed")
		}
	}()
	tokens := lexer.Tokenize(strings.TrimPrefix(text, "\ufeff"))
	if tk := tooDeep(tokens); tk != nil {
		r.add(tk, fmt.Sprintf("nests deeper than %d levels", maxDepth))
		return nil
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			r.add(syntax.GetToken(), "is not valid YAML: "+syntax.GetMessage())
		} else {
			r.add(nil, "is not valid YAML: "+err.Error())
		}
		return nil
	}
	return f
}

// tooDeep returns the first token that opens a level beyond maxDepth.
func tooDeep(tokens token.Tokens) *token.Token {
	var flow int      // open brackets
	var indents []int // columns of the block levels that are open
	line, before := 0, 0
	for _, tk := range tokens {
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		}
		if p := tk.Position; p != nil {
			if p.Line != line {
				line, before = p.Line, 0
				for len(indents) > 0 && indents[len(indents)-1] >= p.Column {
					indents = indents[:len(indents)-1]
				}
				indents = append(indents, p.Column)
			}
			// "- - - x" opens a level with each dash, and "? ? x" with each mark.
			if tk.Type == token.SequenceEntryType || tk.Type == token.MappingKeyType {
				before++
			}
		}
		if flow > maxDepth || len(indents) > maxDepth || before > maxDepth {
			return tk
		}
	}
	return nil
}

func (r *reader) add(tk *token.Token, message string) {
	r.problems = append(r.problems, Problem{Position: r.at(tk), Message: message})
}

// at returns the position of a token, the beginning of the file for nil.
func (r *reader) at(tk *token.Token) Position {
	p := Position{File: r.file, Line: 1, Column: 1}
	if tk != nil && tk.Position != nil {
		p.Line, p.Column = max(tk.Position.Line, 1), max(tk.Position.Column, 1)
	}
	return p
}

// convert returns the node of n, never nil: what is refused is reported and
// becomes null.
func (r *reader) convert(n ast.Node, depth int) *node {
	if n == nil {
		return &node{pos: Position{File: r.file, Line: 1, Column: 1}}
	}
	pos := r.at(n.GetToken())
	null := &node{pos: pos}
	if r.nodes++; r.nodes > maxNodes {
		if r.nodes == maxNodes+1 {
			r.add(n.GetToken(), fmt.Sprintf("has more than %d values with its aliases expanded, which no configuration needs", maxNodes))
		}
		return null
	}
	if depth > maxDepth {
		r.add(n.GetToken(), fmt.Sprintf("nests deeper than %d levels", maxDepth))
		return null
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return null
	case *ast.BoolNode:
		return &node{kind: kindBool, text: n.Token.Value, pos: pos}
	case *ast.IntegerNode:
		return &node{kind: kindInt, text: fmt.Sprint(n.Value), pos: pos}
	case *ast.FloatNode:
		return &node{kind: kindFloat, text: n.Token.Value, pos: pos}
	case *ast.InfinityNode, *ast.NanNode:
		return &node{kind: kindFloat, text: n.GetToken().Value, pos: pos}
	case *ast.StringNode:
		return &node{kind: kindString, text: n.Value, pos: pos}
	case *ast.LiteralNode:
		return &node{kind: kindString, text: n.Value.Value, pos: pos}
	case *ast.MappingNode:
		return r.mapping(n.Values, n.Start, n.IsFlowStyle, depth)
	case *ast.MappingValueNode:
		return r.mapping([]*ast.MappingValueNode{n}, n.Start, false, depth)
	case *ast.SequenceNode:
		s := &node{kind: kindSequence, pos: r.at(n.Start)}
		for _, v := range n.Values {
			s.items = append(s.items, r.convert(v, depth+1))
		}
		return s
	case *ast.AnchorNode:
		if name := scalarText(n.Name); name != "" {
			r.anchors[name] = n.Value
		}
		return r.convert(n.Value, depth)
	case *ast.AliasNode:
		return r.alias(n, depth)
	case *ast.TagNode:
		r.add(n.Start, fmt.Sprintf("has a tag %s; tags are not used here, remove it", n.Start.Value))
		return r.convert(n.Value, depth)
	}
	r.add(n.GetToken(), "is YAML of a kind that is not used here")
	return null
}

func (r *reader) alias(n *ast.AliasNode, depth int) *node {
	name := scalarText(n.Value)
	target, ok := r.anchors[name]
	switch {
	case !ok:
		r.add(n.Start, fmt.Sprintf("refers to the anchor %q, which is not defined before", name))
	case r.open[name]:
		r.add(n.Start, fmt.Sprintf("refers to the anchor %q, which contains it", name))
	default:
		r.open[name] = true
		defer delete(r.open, name)
		return r.convert(target, depth+1)
	}
	return &node{pos: r.at(n.Start)}
}

// mapping converts the keys of a mapping. A key of its own wins over a merged
// one, and an earlier merged one over a later one, as YAML's merge key says.
func (r *reader) mapping(values []*ast.MappingValueNode, start *token.Token, flow bool, depth int) *node {
	m := &node{kind: kindMapping, pos: r.at(start)}
	if !flow && len(values) > 0 && values[0].Key != nil {
		m.pos = r.at(values[0].Key.GetToken())
	}
	seen := map[string]bool{}
	var merged []entry
	for _, v := range values {
		if _, ok := v.Key.(*ast.MergeKeyNode); ok {
			from := r.convert(v.Value, depth+1)
			for _, source := range mergeSources(from) {
				if source.kind != kindMapping {
					r.problems = append(r.problems, Problem{Position: source.pos, Message: "is merged with << but is not a section of keys"})
				}
				merged = append(merged, source.entries...)
			}
			continue
		}
		pos := r.at(v.Key.GetToken())
		key, ok := r.key(v.Key)
		if !ok {
			r.add(v.Key.GetToken(), "is a key of a kind that is not used here; keys are words")
			continue
		}
		if seen[key] {
			m.repeats = append(m.repeats, entry{key: key, pos: pos})
			continue
		}
		seen[key] = true
		m.entries = append(m.entries, entry{key: key, pos: pos, value: r.convert(v.Value, depth+1)})
	}
	for _, e := range merged {
		if !seen[e.key] {
			seen[e.key] = true
			m.entries = append(m.entries, e)
		}
	}
	return m
}

func mergeSources(n *node) []*node {
	if n.kind == kindSequence {
		return n.items
	}
	return []*node{n}
}

func (r *reader) key(n ast.MapKeyNode) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func scalarText(n ast.Node) string {
	if n == nil || n.GetToken() == nil {
		return ""
	}
	return n.GetToken().Value
}
