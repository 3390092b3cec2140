package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/devca"
)

// newDevCACommand returns "outrigger dev-ca".
func newDevCACommand() *cobra.Command {
	var (
		cfg     devca.Config
		entries []string
		bundle  string
	)
	cmd := &cobra.Command{
		Use:   "dev-ca --trust-domain DOMAIN --socket unix:///PATH --entry ID=SELECTOR",
		Short: "Run a certificate authority for development, with a SPIFFE Workload API",
		Long: `Run a certificate authority for development. It serves the SPIFFE Workload API
on a Unix socket and issues X.509-SVIDs with a short life to the processes that
its entries match; they are replaced at half of their life. It runs until
SIGINT or SIGTERM.

An entry is SPIFFE-ID=SELECTOR[,SELECTOR...]. All selectors of an entry must
match the process at the other end of the socket, as the kernel reports it:

  unix:uid:N      its effective user
  unix:gid:N      its effective primary group
  unix:path:FILE  its executable, links resolved
  unix:pid:N      that one process, which must be running

A process that no entry matches gets no identity. The socket's directory is
made with mode 0700 if it does not exist. Without --dir the root lives in memory
and ends with the process.

Use it to develop, not to run a service: anyone who can read the root's key can
be anyone in the trust domain.`,
		Example: `  # Everything that user 1000 runs is the service web.
  outrigger dev-ca --trust-domain demo.test \
    --socket unix:///tmp/outrigger-ca/agent.sock \
    --entry spiffe://demo.test/web=unix:uid:1000

  # web.yaml of a sidecar that this user starts with
  # outrigger run --config web.yaml
  service:  {name: web, port: 8080}
  identity: {workload_api: "unix:///tmp/outrigger-ca/agent.sock"}

  # Two services of one user on one machine, told apart by their executables;
  # the root is kept, and written where other tools can trust it.
  outrigger dev-ca --trust-domain demo.test --socket unix:///tmp/outrigger-ca/agent.sock \
    --dir ~/.local/share/outrigger-ca --bundle-out /tmp/demo-root.pem \
    --entry spiffe://demo.test/web=unix:uid:1000,unix:path:/opt/web/outrigger \
    --entry spiffe://demo.test/api=unix:uid:1000,unix:path:/opt/api/outrigger`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, text := range entries {
				entry, err := parseEntry(text)
				if err != nil {
					return err
				}
				cfg.Entries = append(cfg.Entries, entry)
			}
			if cfg.TTL <= 0 {
				return fmt.Errorf("--ttl %s: the life of a certificate must be above 0, such as 1h", cfg.TTL)
			}
			cmd.SilenceUsage = true
			// The authority's debug lines are its issues, which are what one
			// who runs it wants to see.
			cfg.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug}))
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return runDevCA(ctx, cfg, bundle)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.TrustDomain, "trust-domain", "", "the trust domain, such as demo.test (required)")
	f.StringVar(&cfg.Socket, "socket", "", "where the Workload API is served, unix:///PATH (required)")
	f.DurationVar(&cfg.TTL, "ttl", devca.DefaultTTL, "life of a certificate")
	f.StringVar(&cfg.Dir, "dir", "", "directory that keeps the root between runs")
	f.StringArrayVar(&entries, "entry", nil, "who gets which identity: SPIFFE-ID=SELECTOR[,SELECTOR...]; may be repeated (required)")
	f.StringVar(&bundle, "bundle-out", "", "file to write the trust bundle to, PEM")
	for _, name := range []string{"trust-domain", "socket", "entry"} {
		// It fails only for a flag that does not exist.
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func runDevCA(ctx context.Context, cfg devca.Config, bundle string) error {
	server, err := devca.New(cfg)
	if err != nil {
		return err
	}
	if bundle != "" {
		if err := server.Authority().WriteBundle(bundle); err != nil {
			return err
		}
		cfg.Logger.Info("trust bundle written", slog.String("file", bundle),
			slog.Time("not_after", server.Authority().Root().NotAfter.Truncate(time.Second)))
	}
	for _, e := range cfg.Entries {
		selectors := make([]string, len(e.Selectors))
		for i, s := range e.Selectors {
			selectors[i] = s.String()
		}
		cfg.Logger.Info("entry", slog.String("id", e.ID.String()), slog.String("selectors", strings.Join(selectors, ",")))
	}
	if err := server.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	cfg.Logger.Info("development CA has ended")
	return nil
}

// parseEntry reads SPIFFE-ID=SELECTOR[,SELECTOR...]. A comma within a path is
// part of it unless a selector follows.
func parseEntry(text string) (devca.Entry, error) {
	name, list, ok := strings.Cut(text, "=")
	if !ok {
		return devca.Entry{}, fmt.Errorf("--entry %q: write SPIFFE-ID=SELECTOR, such as spiffe://demo.test/web=unix:uid:1000", text)
	}
	id, err := mtls.ParseID(name)
	if err != nil {
		return devca.Entry{}, fmt.Errorf("--entry %q: %w", text, err)
	}
	entry := devca.Entry{ID: id}
	const prefix = "unix:"
	for i, part := range strings.Split(list, ","+prefix) {
		if i > 0 {
			part = prefix + part
		}
		s, err := devca.ParseSelector(part)
		if err != nil {
			return devca.Entry{}, fmt.Errorf("--entry %q: %w", text, err)
		}
		entry.Selectors = append(entry.Selectors, s)
	}
	return entry, nil
}
