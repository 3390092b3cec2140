// Package demo runs a small mesh of separate processes on one machine, meets it with faults, and shows what it makes of them.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls/devca"
)

// Bounds of Options.
const (
	// DefaultRate is the load in requests a second.
	DefaultRate = 200

	minRate, maxRate = 20, 1000
	minDuration      = 8 * time.Second
)

// Options says which demo to run, and how to show it.
type Options struct {
	// Program is the outrigger executable, which is started for every process
	// of the mesh. Required.
	Program string
	// Duration is how long the load runs; 0 until the context ends.
	Duration time.Duration
	// Rate is the load in requests a second.
	Rate int
	// JSON prints one JSON object at the end and nothing else.
	JSON bool
	// Consul takes the place of the file catalog.
	Consul bool
	// ConsulAddr is a running agent; empty starts one.
	ConsulAddr string
	// Out is where the demo is shown: live if it is a terminal.
	Out io.Writer
	// Err takes warnings.
	Err io.Writer
}

// Validate returns what is wrong with the options.
func (o *Options) Validate() error {
	var errs []error
	if o.Duration != 0 && o.Duration < minDuration {
		errs = append(errs, fmt.Errorf("--duration %s: the faults need at least %s to show; 0 runs until Ctrl-C", o.Duration, minDuration))
	}
	if o.Rate < minRate || o.Rate > maxRate {
		errs = append(errs, fmt.Errorf("--rate %d: use %d to %d requests a second", o.Rate, minRate, maxRate))
	}
	if o.ConsulAddr != "" && !o.Consul {
		errs = append(errs, errors.New("--consul-addr needs --consul"))
	}
	return errors.Join(errs...)
}

const (
	startTries = 3 // another process may take a port between finding and using it
	readyTime  = 30 * time.Second
	svidLife   = time.Minute // short, so that certificates are replaced while one looks on
)

// Run runs the demo until its duration is over or ctx ends. It returns an
// error only when the mesh could not be set up.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := tempDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	s := newStarter()
	threads, endThread := context.WithCancel(context.Background())
	threadDone := make(chan struct{})
	go func() {
		defer close(threadDone)
		s.run(threads)
	}()
	defer func() {
		endThread()
		<-threadDone
	}()

	d := &director{o: o, starter: s, say: func(format string, a ...any) {
		if !o.JSON {
			fmt.Fprintf(o.Out, format+"\n", a...)
		}
	}}
	if o.Consul {
		agent, err := openConsul(ctx, s, dir, o.ConsulAddr, d.say)
		if err != nil {
			return err
		}
		defer agent.close()
		d.consul = agent
	}
	for try := 1; ; try++ {
		again, err := d.attempt(ctx, dir)
		if err == nil || !again || try == startTries {
			return err
		}
	}
}

// attempt sets the mesh up and runs the demo on it. again says that a port was
// taken meanwhile and another attempt, with other ports, may go well.
func (d *director) attempt(ctx context.Context, dir string) (again bool, err error) {
	if d.mesh, err = newMesh(dir); err != nil {
		return false, err
	}
	if d.consul != nil {
		d.mesh.Consul = d.consul.address
	}
	d.script = newScript(d.o.Duration)
	d.mesh.BaseEjection = d.script.scaled(baseEjection)
	d.mesh.MaxEjection = 2 * d.mesh.BaseEjection
	if err := d.mesh.write(); err != nil {
		return false, err
	}
	d.ca, err = devca.New(devca.Config{TrustDomain: trustDomain, Socket: d.mesh.Socket, TTL: svidLife, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return false, err
	}
	serving, stopCA := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- d.ca.Run(serving) }()
	defer func() {
		stopCA()
		<-served
	}()
	select {
	case <-d.ca.Ready():
	case err := <-served:
		served <- err
		return false, err
	}
	defer d.stopProcesses()
	d.say("Starting 4 applications and 4 sidecars on 127.0.0.1; files in %s", dir)
	if err := d.startProcesses(ctx); err != nil {
		if ctx.Err() != nil {
			return false, errors.New("ended before the mesh was ready")
		}
		return d.portTaken(), err
	}
	return false, d.show(ctx)
}
