package config

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strings"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

// Validate calls add for each mistake in the route by itself.
func (r Route) Validate(add func(field, problem string)) {
	if len(r.Name) > 128 || strings.ContainsFunc(r.Name, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		add("name", "is longer than 128 bytes or has control characters")
	}
	ways := 0
	for _, given := range []bool{r.To != "", len(r.Split) > 0, r.Respond != nil} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		add("", "has more than one of to, split and respond; keep one")
	}
	if len(r.Split) > 0 {
		validateSplit(r.Split, add)
	}
	if r.Respond != nil {
		for field, given := range map[string]bool{
			"rewrite": r.Rewrite != nil, "request_headers": r.RequestHeaders != nil, "timeout": r.Timeout != nil,
			"stream_idle_timeout": r.StreamIdleTimeout != nil, "retry": r.Retry != nil, "hedge": r.Hedge != nil, "limits": r.Limits != nil, "priority": r.Priority != nil,
		} {
			if given {
				add(field, "has no effect beside respond: nothing is sent on; remove it")
			}
		}
	}
	if r.Rewrite != nil && r.Rewrite.PathPrefix != "" {
		switch p := r.Match.PathPrefix; {
		case p == "":
			add("rewrite.path_prefix", "takes the place of match.path_prefix, which is not given; write rewrite.path for the whole path")
		case strings.HasSuffix(p, "/") && !strings.HasSuffix(r.Rewrite.PathPrefix, "/"):
			add("rewrite.path_prefix", fmt.Sprintf("ends without a slash, and match.path_prefix with one: %sx would become %sx; write %s/", p, r.Rewrite.PathPrefix, r.Rewrite.PathPrefix))
		}
	}
}

func validateSplit(split []RouteSplit, add func(field, problem string)) {
	sum := 0
	seen := map[string]*RouteSplit{}
	for i, s := range split {
		field := fmt.Sprintf("split[%d]", i)
		switch parts := math.Round(s.Weight * 100); {
		case !(s.Weight >= 0 && s.Weight <= 100):
			add(field+".weight", "must be between 0 and 100")
		case math.Abs(s.Weight*100-parts) > 1e-6:
			add(field+".weight", "has steps finer than 0.01")
		default:
			sum += int(parts)
		}
		to := s.Service + "/" + s.Subset // neither has a slash
		if o := seen[to]; o != nil && s.Service != "" && reflect.DeepEqual(o.RequestHeaders, s.RequestHeaders) && reflect.DeepEqual(o.ResponseHeaders, s.ResponseHeaders) {
			add(field+".service", fmt.Sprintf("%q has a share already; add the two up", strings.TrimSuffix(to, "/")))
		}
		seen[to] = &split[i]
	}
	if sum != 100*100 {
		add("split", fmt.Sprintf("has weights that add up to %g; they must add up to 100", float64(sum)/100))
	}
}

// Validate calls add for each mistake.
func (m RouteMatch) Validate(add func(field, problem string)) {
	paths := 0
	for _, p := range []struct{ field, value string }{{"path", m.Path}, {"path_prefix", m.PathPrefix}, {"path_regex", m.PathRegex}} {
		if p.value == "" {
			continue
		}
		if paths++; paths > 1 {
			add(p.field, "is a second condition on the path; keep one of path, path_prefix and path_regex")
			continue
		}
		if p.field == "path_regex" {
			validateRegex(p.field, p.value, add)
			continue
		}
		validatePath(p.field, p.value, add)
	}
	if m.IgnoreCase && paths == 0 {
		add("ignore_case", "has no effect without a condition on the path")
	}
	if m.GRPC != nil && (paths > 0 || len(m.Methods) > 0) {
		add("grpc", "says path and method already; remove those beside it")
	}
	for i, method := range m.Methods {
		if !http1.IsToken(method) || method == "*" {
			add(fmt.Sprintf("methods[%d]", i), fmt.Sprintf("%q is not an HTTP method; leave methods empty for all", method))
		}
	}
}

func validatePath(field, path string, add func(field, problem string)) {
	switch {
	case tooLong(path, maxValue) != "":
		add(field, tooLong(path, maxValue))
	case !strings.HasPrefix(path, "/"):
		add(field, fmt.Sprintf("is %q; a path begins with a slash", path))
	case strings.ContainsAny(path, "?#"):
		add(field, fmt.Sprintf("is %q; a query or fragment is no part of a path", path))
	case http1.IsPath(path) && http1.AmbiguousPath([]byte(path)):
		add(field, fmt.Sprintf("is %q, which has a dot segment, a backslash or a control character, plain or encoded: requests for such paths are refused", path))
	case !http1.IsPath(path):
		add(field, fmt.Sprintf("is %q, which no request can have: spaces and other characters are percent-encoded, as they are sent", path))
	}
}

func validateRegex(field, text string, add func(field, problem string)) {
	if p := tooLong(text, maxRegex); p != "" {
		add(field, p)
		return
	}
	if _, err := FullRegexp(text, false); err != nil {
		add(field, fmt.Sprintf("is not a regular expression (RE2): %v", err))
	}
}

// FullRegexp compiles a regular expression that matches whole texts.
func FullRegexp(text string, ignoreCase bool) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(text); err != nil {
		return nil, err // told of what was written
	}
	flags := "s"
	if ignoreCase {
		flags = "si"
	}
	return regexp.Compile("^(?" + flags + ":" + text + ")$")
}

// Validate calls add for each mistake.
func (m HeaderMatch) Validate(add func(field, problem string)) {
	switch {
	case m.Name == "":
		add("name", "is required; name the field")
	case !http1.IsToken(m.Name):
		add("name", fmt.Sprintf("is %q, which is not the name of a field", m.Name))
	}
	oneWay(map[string]string{"exact": m.Exact, "prefix": m.Prefix, "suffix": m.Suffix, "regex": m.Regex}, m.Present,
		"exact, prefix, suffix, regex and present", add)
}

// Validate calls add for each mistake.
func (m QueryMatch) Validate(add func(field, problem string)) {
	switch {
	case m.Name == "":
		add("name", "is required; name the parameter")
	case strings.ContainsAny(m.Name, "&=#"):
		add("name", fmt.Sprintf("is %q; a parameter's name ends before = and &", m.Name))
	}
	oneWay(map[string]string{"exact": m.Exact, "regex": m.Regex}, m.Present, "exact, regex and present", add)
}

// oneWay asks for exactly one way to compare.
func oneWay(ways map[string]string, present bool, list string, add func(field, problem string)) {
	n := 0
	if present {
		n++
	}
	for field, value := range ways {
		if value == "" {
			continue
		}
		n++
		if field == "regex" {
			validateRegex(field, value, add)
		} else if p := tooLong(value, maxValue); p != "" {
			add(field, p)
		}
	}
	if n != 1 {
		add("", "must have exactly one of "+list)
	}
}

// Validate calls add for each mistake.
func (m GRPCMatch) Validate(add func(field, problem string)) {
	switch {
	case m.Service == "":
		add("service", "is required; name the gRPC service with its package, such as shop.v1.Cart")
	case strings.Contains(m.Service, "/") || !http1.IsPath("/"+m.Service):
		add("service", fmt.Sprintf("is %q, which is not the name of a gRPC service", m.Service))
	}
	if strings.Contains(m.Method, "/") || !http1.IsPath("/"+m.Method) {
		add("method", fmt.Sprintf("is %q, which is not the name of a gRPC method", m.Method))
	}
}

// Validate calls add for each mistake.
func (r RouteReply) Validate(add func(field, problem string)) {
	if r.Status < 200 || r.Status > 599 {
		add("status", fmt.Sprintf("is %d; write a status from 200 to 599", r.Status))
	}
	if p := tooLong(r.Body, maxReply); p != "" {
		add("body", p)
	}
	if (r.Status == 204 || r.Status == 304) && r.Body != "" {
		add("body", fmt.Sprintf("cannot be sent with status %d", r.Status))
	}
	if !http1.IsValue(r.ContentType) || r.ContentType == "" || len(r.ContentType) > 256 {
		add("content_type", fmt.Sprintf("is %q; write a media type such as text/plain", r.ContentType))
	}
}

// Validate calls add for each mistake.
func (r RouteRewrite) Validate(add func(field, problem string)) {
	if (r.Path == "") == (r.PathPrefix == "") {
		add("", "must have exactly one of path and path_prefix")
	}
	if r.Path != "" {
		validatePath("path", r.Path, add)
	}
	if r.PathPrefix != "" {
		validatePath("path_prefix", r.PathPrefix, add)
	}
}

// Validate calls add for each mistake.
func (e HeaderEdits) Validate(add func(field, problem string)) {
	if len(e.Set)+len(e.Add)+len(e.Remove) > maxEdits {
		add("", fmt.Sprintf("has more than %d changes", maxEdits))
	}
	bytes := 0
	for _, values := range []map[string]string{e.Set, e.Add} {
		for name, value := range values {
			bytes += len(name) + len(value) + len(": \r\n")
		}
	}
	if bytes > maxAdded {
		add("", fmt.Sprintf("adds %d bytes to a head; at most %d are possible", bytes, maxAdded))
	}
	seen := map[string]bool{}
	check := func(field, name string) {
		switch id := http1.FieldOf(name); {
		case !http1.IsToken(name) || len(name) > 256:
			add(field, fmt.Sprintf("%q is not the name of a field", name))
		case http1.HopByHop(id), id == http1.ContentLength, id == http1.Trailer, id == http1.Expect:
			add(field, fmt.Sprintf("%s concerns how a message is sent on one connection, which the proxy decides", name))
		case id == http1.Host:
			add(field, "host says what the request is for; it is not changed")
		case ownField(id, name):
			add(field, fmt.Sprintf("%s is written by the proxy itself; others rely on what it says", name))
		}
	}
	for _, part := range []struct {
		name   string
		values map[string]string
	}{{"set", e.Set}, {"add", e.Add}} {
		for _, name := range sortedKeys(reflect.ValueOf(part.values)) {
			field := joinKey(part.name, name)
			check(field, name)
			if value := part.values[name]; !http1.IsValue(value) {
				add(field, fmt.Sprintf("is %q; a value has no control characters, and no space at its ends", value))
			} else if p := tooLong(value, maxValue); p != "" {
				add(field, p)
			}
			lower := part.name + ":" + strings.ToLower(name)
			if seen[lower] {
				add(field, fmt.Sprintf("%s is given twice, in different case", name))
			}
			seen[lower] = true
		}
	}
	for i, name := range e.Remove {
		check(fmt.Sprintf("remove[%d]", i), name)
	}
}

// ownField reports whether the proxy writes a field itself, or keeps it as the
// other end said it.
func ownField(id http1.FieldID, name string) bool {
	switch id {
	case http1.XForwardedFor, http1.XForwardedProto, http1.XForwardedClientCert, http1.XRequestID,
		http1.Traceparent, http1.Tracestate, http1.GRPCTimeout, http1.GRPCStatus, http1.GRPCMessage:
		return true
	}
	return strings.HasPrefix(strings.ToLower(name), "x-outrigger-")
}
