package main

import (
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// output is one generated file, its path relative to the module.
type output struct {
	path string
	text string
}

// generate returns every generated file as it should be.
func generate(root string) ([]output, error) {
	docs, err := fieldDocs(root)
	if err != nil {
		return nil, err
	}
	schema, err := config.Schema()
	if err != nil {
		return nil, err
	}
	return []output{
		{"config/fielddocs_gen.go", docs},
		{"docs/reference/config.schema.json", string(schema)},
		{"docs/reference/config.md", configReference(config.Fields())},
		{"docs/reference/outcomes.md", outcomeReference()},
	}, nil
}

const configHead = `# Configuration

One YAML file (or JSON, which is YAML) tells one proxy what to do. Only ` + "`service.name`" + ` is required; every other
key has a default. ` + "`outrigger validate FILE`" + ` names every mistake at once with its place, and ` + "`outrigger config effective FILE`" + `
prints every value in force with where it came from. [config.schema.json](config.schema.json) is the JSON Schema for editors.

- Durations have a unit: ` + "`250ms`, `2s`, `1h30m`" + `. ` + "`0`" + ` needs none and means what the key says, most often off.
- Percentages are numbers from 0 to 100 unless the key says otherwise; their keys end in ` + "`_percent`" + `.
- A section that says so takes the word ` + "`off`" + ` in place of its keys. A section without keys has its defaults.
- Anchors, aliases and merge keys (` + "`<<`" + `) may be used; tags may not. A file holds one document of at most 1 MiB.
- There is no environment expansion.
- A policy under the name of an upstream starts, key by key, from the policy ` + "`\"*\"`" + `, which starts from the defaults. A list
  replaces the one it starts from.

This page is generated from the types in package config and those of the machines it configures.

`

// configReference renders the keys as one table a section, a section's own
// keys before those of the sections in it.
func configReference(fields []config.Field) string {
	tables := map[string][]config.Field{}
	for _, f := range fields {
		tables[parentOf(f.Path)] = append(tables[parentOf(f.Path)], f)
	}
	var b strings.Builder
	b.WriteString(configHead)
	for _, top := range tables[""] {
		fmt.Fprintf(&b, "## %s\n\n%s\n\n", top.Path, top.Doc)
		writeTable(&b, tables, top.Path)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// writeTable writes the table of the keys in the section at path, then the
// tables of the sections in it.
func writeTable(b *strings.Builder, tables map[string][]config.Field, path string) {
	if keys := tables[path]; len(keys) > 0 {
		if strings.Contains(path, ".") {
			fmt.Fprintf(b, "### %s\n\n", heading(path))
		}
		b.WriteString("| Key | Type | Default | Description |\n|---|---|---|---|\n")
		for _, f := range keys {
			fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", lastOf(f.Path), typeCell(f), defaultCell(f), cell(f.Doc))
		}
		b.WriteByte('\n')
		for _, f := range keys {
			for _, below := range [...]string{f.Path, f.Path + "[]", f.Path + ".<name>"} {
				writeTable(b, tables, below)
			}
		}
		return
	}
	if keys := tables[path+".<service>"]; len(keys) > 0 {
		writeTable(b, tables, path+".<service>")
	}
}

// heading keeps the steps in angle brackets from being read as HTML.
func heading(path string) string { return "`" + path + "`" }

func parentOf(path string) string { return path[:max(strings.LastIndexByte(path, '.'), 0)] }

func lastOf(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func typeCell(f config.Field) string {
	t := f.Type
	switch {
	case len(f.Words) > 0:
		t = "`" + strings.Join(f.Words, "` `") + "`"
		if f.Type == "list" {
			t = "list of " + t
		}
	case f.Of != "":
		t += " of " + plural(f.Of)
	}
	if f.Off {
		t += " or `off`"
	}
	return t
}

func plural(word string) string {
	switch word {
	case "text":
		return "texts"
	case "true or false":
		return word
	}
	return word + "s"
}

func defaultCell(f config.Field) string {
	if f.Default == "" {
		return ""
	}
	return "`" + f.Default + "`"
}

// cell makes a description fit for a table.
func cell(doc string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "<", "&lt;", ">", "&gt;").Replace(doc)
}

const outcomeHead = `# Outcomes

Every exchange ends for exactly one reason, and the reason's row in this table fixes all that follows from it. The name is
the word in logs, in metrics and in the replies that the proxy makes itself; the flag is its short form in access logs.

- **Source**: who caused it: the caller (downstream), the endpoint (upstream) or this proxy (local).
- **HTTP**, **gRPC**: the status of the reply the proxy makes itself; - when it makes none.
- **Retry**: whether another attempt may follow: ` + "`never`" + `; ` + "`unsent`" + `, any method, for the endpoint cannot have processed any of
  the request; ` + "`idempotent`" + `, only methods that may be repeated.
- **Blame**: whether it counts against the endpoint in outlier detection and in the circuit breaker.
- **Proxy-Status**: the error type in that field of the proxy's own replies (RFC 9209).

This page is generated from the table in package outcome.

| Name | Flag | Source | HTTP | gRPC | Retry | Blame | Proxy-Status | Meaning |
|---|---|---|---|---|---|---|---|---|
`

// outcomeReference renders the table of package outcome.
func outcomeReference() string {
	var b strings.Builder
	b.WriteString(outcomeHead)
	for i := range outcome.Count {
		row := outcome.Reason(i).Row()
		status, grpc := "-", "-"
		if row.Status != 0 {
			status = fmt.Sprint(row.Status)
		}
		if row.GRPC != 0 {
			grpc = fmt.Sprint(row.GRPC)
		}
		blame := "no"
		if row.Blame {
			blame = "yes"
		}
		proxyStatus := "-"
		if row.Proxy != "" {
			proxyStatus = "`" + row.Proxy + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s | %s | %s |\n", row.Name, row.Flag,
			sourceWord(row.Source), status, grpc, retryWord(row.Retryable), blame, proxyStatus, cell(row.Detail))
	}
	return b.String()
}

func sourceWord(s outcome.Source) string {
	switch s {
	case outcome.SourceDownstream:
		return "downstream"
	case outcome.SourceUpstream:
		return "upstream"
	case outcome.SourceLocal:
		return "local"
	}
	return "-"
}

func retryWord(r outcome.Retryable) string {
	switch r {
	case outcome.RetryUnsent:
		return "unsent"
	case outcome.RetryIdempotent:
		return "idempotent"
	}
	return "never"
}
