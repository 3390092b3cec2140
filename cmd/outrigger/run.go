package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
)

// Exit codes of "outrigger run".
const (
	exitFailed = 1 // the configuration is wrong, or a part failed
	exitCutOff = 3 // the drain had to cut connections off
)

// newRunCommand returns "outrigger run".
func newRunCommand() *cobra.Command {
	var flags runFlags
	cmd := &cobra.Command{
		Use:   "run --config FILE | --consul-sidecar-for SERVICE",
		Short: "Run the proxy",
		Long: `Run the proxy that a configuration file describes, or that Consul's mesh does.

With --consul-sidecar-for or --proxy-id it is a sidecar of Consul's mesh and needs
no file: its registration, upstreams, intentions and certificate are read from
Consul and followed. Where Consul is and how it is asked say the environment
variables of its own tools (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN_FILE, CONSUL_CACERT
and so on) or discovery.consul of the file, which lies below what Consul says; see
docs/consul.md.

The file is read again when it changes and on SIGHUP. A new version is applied
whole or not at all: a bad one is reported and the last good one stays in use.

--memory is a budget for the process as the system counts it. The closer it is,
the more is given up, in the order that docs/memory.md tells. Without it the
runtime plans with 90 % of the memory limit of the control group, unless
GOMEMLIMIT is set; the number of processors follows the group's CPU quota.

SIGTERM and SIGINT drain: the proxy turns not ready, deregisters, goes on
serving for drain.delay, then lets connections end for up to drain.timeout.
A second signal ends it at once.

Exit codes: 0 everything ended in order, 1 the configuration is wrong or a part
failed, 3 connections in use were cut off at the end of the drain.`,
		Example: "  outrigger run --config /etc/outrigger/web.yaml\n  outrigger run --consul-sidecar-for web",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			return serve(cmd.Context(), &flags)
		},
	}
	flags.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("consul-sidecar-for", "proxy-id")
	return cmd
}

func serve(ctx context.Context, flags *runFlags) error {
	bytes, err := memory.ParseSize(flags.budget)
	if err != nil {
		return fail(fmt.Errorf("--memory %w", err))
	}
	stop, cancel := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	base, loaded, err := flags.settings()
	if err != nil {
		return fail(err)
	}
	level := new(slog.LevelVar)
	o := proxy.Options{LogLevel: level, Version: version, Commit: buildCommit()}
	digest := digestOf(flags.file)
	if base != nil {
		m, err := base.Make()
		if err != nil {
			return fail(err)
		}
		o.Log = newLogger(&m.Config.Telemetry.Log, level)
		side, first, following, err := flags.startSidecar(stop, base, o)
		if err != nil {
			return waitedFor(err)
		}
		defer func() {
			following.Stop()
			_ = following.Wait() // it ends when it is told to
		}()
		o.Sidecar, loaded = side, first
	} else {
		digest = loaded.Digest
		o.Log = newLogger(&loaded.Config.Telemetry.Log, level)
	}
	o.Config = loaded
	if bytes == 0 {
		bytes = loaded.Config.Memory.Bytes()
	}
	lim := setLimits(bytes)
	if flags.processors > 0 {
		lim.procsWhy = "the command line"
	}
	o.Memory = lim.budget
	p, err := proxy.New(o)
	if err != nil {
		return fail(err)
	}
	o.Log.Info("starting", "event", "start", "service", loaded.Config.Service.Name, "version", version, "admin", adminURL(p))
	lim.log(o.Log)
	return flags.run(ctx, stop, p, digest, o.Log)
}

// run serves until stop ends, and drains.
func (f *runFlags) run(ctx, stop context.Context, p *proxy.Proxy, digest string, log *slog.Logger) error {
	kill, killNow := context.WithCancel(ctx)
	defer killNow()
	watching, endWatch := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watchSignals(watching, stop, killNow)
	}()
	reloads := make(chan struct{})
	go func() {
		defer close(reloads)
		watchFile(watching, f.file, digest, p, log)
	}()
	err := p.Run(stop, kill)
	endWatch()
	<-watched
	<-reloads
	switch {
	case errors.Is(err, proxy.ErrCutOff):
		return &exitCode{exitCutOff, err}
	case err != nil:
		return fail(err)
	}
	return nil
}

// adminURL is where people find the admin API, or "off".
func adminURL(p *proxy.Proxy) string {
	a := p.AdminAddress().String()
	if a == "off" {
		return a
	}
	return "http://" + a + "/"
}

func newLogger(c *config.Log, level *slog.LevelVar) *slog.Logger {
	var l slog.Level
	if l.UnmarshalText([]byte(c.Level)) == nil {
		level.Set(l)
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

// watchSignals ends the drain at a second signal.
func watchSignals(ctx, stop context.Context, killNow func()) {
	select {
	case <-ctx.Done():
		return
	case <-stop.Done():
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(again)
	select {
	case <-ctx.Done():
	case <-again:
		killNow()
	}
}
