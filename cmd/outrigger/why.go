package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/config"
)

// newWhyCommand returns "outrigger why".
func newWhyCommand() *cobra.Command {
	var address string
	var asJSON bool
	var failures int
	cmd := &cobra.Command{
		Use:   "why [REQUEST-ID]",
		Short: "Tell why a request ended as it did",
		Long: `Ask a running proxy what it decided for a request: which route it took and why,
who was tried and by which scores, what came of each attempt and why no other
followed, the times in force, and the settings that would change it, each with
its place in the configuration. The id is that of x-request-id, which the
proxy's own replies carry too.

What failed, was refused, was slow or tried again is kept always, and a sample of
the rest (telemetry.ledger), until newer ones take its place.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("last-failures") {
				if len(args) == 1 { // "--last-failures 3" as well as "--last-failures=3"
					return cmd.Flags().Set("last-failures", args[0])
				}
				return cobra.NoArgs(cmd, args)
			}
			if len(args) != 1 {
				return errors.New("give one request id, or --last-failures")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			path, q := "/ledger", url.Values{}
			if cmd.Flags().Changed("last-failures") {
				q.Set("failures", strconv.Itoa(failures))
			} else {
				path = "/why"
				q.Set("id", args[0])
			}
			if asJSON {
				q.Set("format", "json")
			}
			return askAdmin(cmd.Context(), cmd.OutOrStdout(), address, path+"?"+q.Encode())
		},
	}
	cmd.Flags().StringVar(&address, "admin", config.Default().Admin.Listen, "the address of the proxy's admin API")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&failures, "last-failures", 0, "tell the last `N` exchanges that failed instead (10 without a number)")
	cmd.Flags().Lookup("last-failures").NoOptDefVal = "10"
	return cmd
}

const (
	askTimeout = 10 * time.Second
	maxAnswer  = 16 << 20
)

// askAdmin writes what the admin API answers.
func askAdmin(ctx context.Context, out io.Writer, address, path string) error {
	address = strings.TrimPrefix(address, "http://")
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("--admin %s: %w; write HOST:PORT", address, err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // asks nobody else, whatever the environment says
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("the admin API does not answer: %w; is a proxy running, and is this its address (--admin)?", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return errors.New(strings.TrimSpace(string(b)))
	}
	_, err = io.Copy(out, io.LimitReader(resp.Body, maxAnswer))
	return err
}
