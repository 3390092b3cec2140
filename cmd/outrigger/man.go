package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newManCommand returns "outrigger man".
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages of all commands into a folder",
		Long: `Write the manual pages of all commands into a folder, which is made when it is
not there: one file a command, section 1.`,
		Example: "  outrigger man /usr/local/share/man/man1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			n := 0
			for _, c := range documented(cmd.Root()) {
				var b bytes.Buffer
				writeMan(&b, c)
				if err := os.WriteFile(filepath.Join(args[0], manName(c)+".1"), b.Bytes(), 0o644); err != nil {
					return err
				}
				n++
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s in %s\n", count(n, "page"), args[0])
			return err
		},
	}
}

// documented returns root and all commands below it that people call.
func documented(root *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{root}
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && !c.IsAdditionalHelpTopicCommand() {
			list = append(list, documented(c)...)
		}
	}
	return list
}

func manName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// writeMan writes the manual page of c in the man macros of roff.
func writeMan(w io.Writer, c *cobra.Command) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	c.InitDefaultHelpFlag()
	say(`.TH %q 1 "" "outrigger %s" "Outrigger"`, strings.ToUpper(manName(c)), roff(c.Root().Version))
	say(".SH NAME\n%s \\- %s", roff(manName(c)), roff(c.Short))
	say(".SH SYNOPSIS")
	say(".B %s", roff(c.CommandPath()))
	_, rest, _ := strings.Cut(c.Use, " ")
	if c.HasAvailableSubCommands() {
		rest = "COMMAND"
	}
	if c.HasAvailableFlags() {
		rest = strings.TrimSpace(rest + " [flags]")
	}
	if rest != "" {
		say("%s", roff(rest))
	}
	if text := c.Long; text != "" {
		say(".SH DESCRIPTION")
		manText(w, text)
	}
	if c.HasAvailableSubCommands() {
		say(".SH COMMANDS")
		for _, s := range c.Commands() {
			if s.IsAvailableCommand() {
				say(".TP\n.B %s\n%s", roff(s.Name()), roff(s.Short))
			}
		}
	}
	manFlags(w, "OPTIONS", c.NonInheritedFlags())
	manFlags(w, "COMMON OPTIONS", c.InheritedFlags())
	if c.Example != "" {
		say(".SH EXAMPLES\n.nf")
		for text := range strings.Lines(c.Example) {
			say("%s", roff(strings.TrimRight(text, "\n")))
		}
		say(".fi")
	}
	var also []string
	if c.HasParent() {
		also = append(also, manName(c.Parent()))
	}
	for _, s := range c.Commands() {
		if s.IsAvailableCommand() {
			also = append(also, manName(s))
		}
	}
	if len(also) > 0 {
		say(".SH SEE ALSO")
		for i, name := range also {
			comma := ","
			if i == len(also)-1 {
				comma = ""
			}
			say(".BR %s (1)%s", roff(name), comma)
		}
	}
}

func manFlags(w io.Writer, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	_, _ = fmt.Fprintf(w, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := `\fB` + roff("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			name = `\fB` + roff("-"+f.Shorthand) + `\fR, ` + name
		}
		if kind != "" {
			name += ` \fI` + roff(kind) + `\fR`
		}
		d := f.DefValue
		if f.Name == "admin" {
			d = adminDefault // whatever the environment says here
		}
		if d != "" && d != "false" && d != "[]" {
			usage += " (default " + d + ")"
		}
		_, _ = fmt.Fprintf(w, ".TP\n%s\n%s\n", name, roff(usage))
	})
}

// manText writes paragraphs. Those with lines that are indented stay as they
// are.
func manText(w io.Writer, text string) {
	for i, p := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if i > 0 {
			_, _ = fmt.Fprintln(w, ".PP")
		}
		asIs := strings.HasPrefix(p, " ") || strings.Contains(p, "\n ")
		if asIs {
			_, _ = fmt.Fprintln(w, ".nf")
		}
		for part := range strings.SplitSeq(p, "\n") {
			_, _ = fmt.Fprintln(w, roff(part))
		}
		if asIs {
			_, _ = fmt.Fprintln(w, ".fi")
		}
	}
}

// roff keeps text from being taken for requests.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
