package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// Bounds of the interval of "outrigger top".
const (
	minInterval = 100 * time.Millisecond
	maxInterval = time.Hour
)

// newTopCommand returns "outrigger top".
func newTopCommand() *cobra.Command {
	var once, asJSON bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the clusters and endpoints of a running proxy",
		Long: `Watch what a running proxy does: for each cluster requests a second, the share
that succeeded, the duration of half and of 99 % of them, retries, and how many
endpoints are ejected; for each endpoint its state, attempts and load. All is of
the interval between two looks. SHARE is of the cluster's attempts. Where there
are limits on active requests or admission control: how many wait for their turn,
how many a second are refused for a limit, and what share of the requests
admission control holds back now.

Without a terminal, tables follow each other; with --once there is one, after
one interval. With --json there is one line of JSON a table. Ctrl-C ends it.`,
		Example: "  outrigger top --interval 2s\n  outrigger top --once --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < minInterval || interval > maxInterval {
				return fmt.Errorf("--interval is %v; use %v to %v", interval, minInterval, maxInterval)
			}
			cmd.SilenceUsage = true
			c, err := newClient(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer cancel()
			out := cmd.OutOrStdout()
			s := &screen{w: out, json: asJSON, live: !once && !asJSON && isTerminal(out)}
			return watch(ctx, c, s, interval, once)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "print one table and end")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "the time between two looks")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	adminFlag(cmd)
	return cmd
}

// isTerminal reports whether w is one that wants colours.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
}

// watch shows what changed between two looks, again and again.
func watch(ctx context.Context, c *client, s *screen, interval time.Duration, once bool) error {
	s.begin()
	defer s.end()
	var before admin.Overview
	if err := c.get(ctx, "/", &before); err != nil {
		return err
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var now admin.Overview
		err := c.get(ctx, "/", &now)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !s.live:
			return err
		case err != nil: // it may be starting anew
			s.trouble(err)
			continue
		}
		if err := s.show(between(&before, &now)); err != nil || once {
			return err
		}
		before = now
	}
}

// screen is where tables are shown.
type screen struct {
	w     io.Writer
	json  bool
	live  bool // one table in the place of the one before
	shown bool
}

// begin takes the terminal's other screen and hides the cursor; end gives both
// back.
func (s *screen) begin() {
	if s.live {
		_, _ = io.WriteString(s.w, "\x1b[?1049h\x1b[?25l\x1b[H\x1b[J")
	}
}

func (s *screen) end() {
	if s.live {
		_, _ = io.WriteString(s.w, "\x1b[?25h\x1b[?1049l")
	}
}

func (s *screen) trouble(err error) {
	width, _ := s.size()
	text := []rune(admin.Plain(err.Error()))
	if width > 0 && len(text) > width {
		text = text[:width]
	}
	_, _ = fmt.Fprintf(s.w, "\x1b[H%s%s%s\x1b[K", toneBad, string(text), toneEnd)
}

// size is the terminal's, 0 when there is none.
func (s *screen) size() (width, height int) {
	if f, ok := s.w.(*os.File); ok && s.live {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil {
			return w, h
		}
	}
	return 0, 0
}

func (s *screen) show(r *rates) error {
	if s.json {
		return writeLine(s.w, r)
	}
	width, height := s.size()
	var b strings.Builder
	if err := r.write(&b, width, s.live || isTerminal(s.w)); err != nil {
		return err
	}
	text := b.String()
	switch {
	case s.live:
		text = frame(text, height)
	case s.shown:
		text = "\n" + text
	}
	s.shown = true
	_, err := io.WriteString(s.w, text)
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// frame puts text in the place of what the terminal shows: each line to its end,
// then nothing below, and no more lines than there are.
func frame(text string, height int) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if height > 1 && len(lines) > height {
		rest := len(lines) - height + 1
		lines = append(lines[:height-1], fmt.Sprintf("%s… %d more lines%s", toneSoft, rest, toneEnd))
	}
	return "\x1b[H" + strings.Join(lines, "\x1b[K\r\n") + "\x1b[K\x1b[J"
}
