// Command bench measures Outrigger and other proxies on one machine in turns and writes the tables of docs/BENCHMARKS.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run carries out one command; without one it is the benchmark.
func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "origin":
			return runOrigin(ctx, args[1:])
		case "load":
			return runLoad(ctx, args[1:])
		case "reverseproxy":
			return runReverseProxy(ctx, args[1:])
		case "fetch":
			return runFetch(ctx, args[1:], os.Stdout)
		}
	}
	o, err := parseOptions(args, os.Stderr)
	if err != nil {
		return err
	}
	if o.plan {
		var subjects []subject
		for _, s := range allSubjects(o, func(string, ...any) {}) {
			if len(o.subjects) == 0 || slices.Contains(o.subjects, s.name()) {
				subjects = append(subjects, s)
			}
		}
		fmt.Print(describePlans(o.plans(subjects)))
		return nil
	}
	return runBench(ctx, o, os.Stdout)
}
