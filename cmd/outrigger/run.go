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
	var file, budget string
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run the proxy",
		Long: `Run the proxy that a configuration file describes.

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
		Example: "  outrigger run --config /etc/outrigger/web.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			return serve(cmd.Context(), file, budget)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the configuration file")
	cmd.Flags().StringVar(&budget, "memory", "", `the most memory to take, such as 48MiB (default: memory.budget of the configuration)`)
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

func serve(ctx context.Context, file, budget string) error {
	bytes, err := memory.ParseSize(budget)
	if err != nil {
		return &exitCode{exitFailed, fmt.Errorf("--memory %w", err)}
	}
	loaded, err := config.Load(file)
	if err != nil {
		return &exitCode{exitFailed, err}
	}
	if bytes == 0 {
		bytes = loaded.Config.Memory.Bytes()
	}
	lim := setLimits(bytes)
	level := new(slog.LevelVar)
	log := newLogger(&loaded.Config.Telemetry.Log, level)
	p, err := proxy.New(proxy.Options{Config: loaded, Log: log, LogLevel: level, Version: version, Commit: buildCommit(), Memory: lim.budget})
	if err != nil {
		return &exitCode{exitFailed, err}
	}
	log.Info("starting", "event", "start", "service", loaded.Config.Service.Name, "version", version, "admin", adminURL(p))
	lim.log(log)

	stop, cancel := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
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
		watchFile(watching, file, loaded.Digest, p, log)
	}()
	err = p.Run(stop, kill)
	endWatch()
	<-watched
	<-reloads
	switch {
	case errors.Is(err, proxy.ErrCutOff):
		return &exitCode{exitCutOff, err}
	case err != nil:
		return &exitCode{exitFailed, err}
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
