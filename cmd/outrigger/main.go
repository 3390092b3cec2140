// Command outrigger is a sidecar service-mesh proxy, an API gateway and a load balancer in one binary.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// Set by the linker.
var (
	version = "dev"
	commit  = ""
)

func main() { os.Exit(run(context.Background(), standIn(os.Args[0], os.Args[1:]))) }

// exitCode is an error that ends the process with a code of its own.
type exitCode struct {
	code int
	err  error
}

func (e *exitCode) Error() string { return e.err.Error() }
func (e *exitCode) Unwrap() error { return e.err }

// newRoot returns the command with all those below it.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "outrigger",
		Short:         "A sidecar service-mesh proxy",
		Long:          "Outrigger stands beside an instance of a service, carries all its traffic, and gives it\nidentity (mTLS with SPIFFE), discovery, load balancing, outlier detection, circuit\nbreaking, retries and limits.",
		SilenceErrors: true,
		Version:       version,
	}
	root.AddCommand(
		newRunCommand(),
		newValidateCommand(),
		newLintCommand(),
		newConfigCommand(),
		newConsulCommand(),
		newEndpointsCommand(),
		newTopCommand(),
		newEjectCommand(),
		newPinCommand(),
		newReleaseCommand(),
		newFaultCommand(),
		newWhyCommand(),
		newExplainCommand(),
		newOutcomesCommand(),
		newReplayCommand(),
		newAdviseCommand(),
		newSimulateCommand(),
		newDevCACommand(),
		newDataplaneCommand(),
		newEnvoyCommand(),
		newDemoCommand(),
		newInterceptCommand(),
		newManCommand(),
		newVersionCommand(),
	)
	return root
}

// run executes one command and returns the exit code.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "outrigger:", err)
	var code *exitCode
	if errors.As(err, &code) {
		return code.code
	}
	if !cmd.SilenceUsage {
		fmt.Fprintf(os.Stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return 1
}
