package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

const (
	frameTime  = 250 * time.Millisecond // between two pictures on a terminal
	statusTime = 5 * time.Second        // between two lines of status elsewhere
	// recordDelay is how long the access log of a sidecar keeps a record back,
	// and some more.
	recordDelay = 300 * time.Millisecond
)

// show runs the load and the script, and shows what happens, until the
// duration is over or ctx ends.
func (d *director) show(ctx context.Context) error {
	loading, cancel := context.WithCancel(ctx)
	if d.o.Duration > 0 {
		loading, cancel = context.WithTimeout(ctx, d.o.Duration)
	}
	defer cancel()

	began := time.Now()
	s := &stats{}
	j := &journal{began: began, names: d.mesh.names()}
	r := &run{began: began, stats: s, journal: j, witness: newWitness(s, j)}
	w := &watcher{mesh: d.mesh}
	d.live.Store(r)
	// What is still said while everything ends is no part of the demo.
	defer d.live.Store(nil)

	var wg sync.WaitGroup
	wg.Go(func() { d.direct(loading, r) })
	if !d.o.JSON {
		wg.Go(func() { w.run(loading) })
		wg.Go(func() { d.display(loading, r, w) })
	}
	(&load{url: d.url(), rate: d.o.Rate, began: began, stats: s}).run(loading)
	ran := time.Since(began)
	wg.Wait()

	// The last records are on their way.
	time.Sleep(recordDelay)
	r.witness.settle(time.Time{})
	rep := newReport(r, ran)
	if d.o.JSON {
		return rep.writeJSON(d.o.Out)
	}
	_, err := io.WriteString(d.o.Out, rep.text())
	return err
}

// display shows the demo in the way that fits the output.
func (d *director) display(ctx context.Context, r *run, w *watcher) {
	f, ok := d.o.Out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		d.displayLines(ctx, r, w)
		return
	}
	// The alternate screen leaves what was on the terminal as it was.
	fmt.Fprint(f, "\x1b[?1049h\x1b[?25l\x1b[2J")
	defer fmt.Fprint(f, "\x1b[?25h\x1b[?1049l")
	colour := os.Getenv("NO_COLOR") == ""
	tick := time.NewTicker(frameTime)
	defer tick.Stop()
	for {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil || width <= 0 || height <= 0 {
			width, height = 80, 24
		}
		v := d.view(r, w)
		fmt.Fprint(f, frame(v.render(width, height, colour)))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// displayLines writes a line for each event, and one of status from time to time.
func (d *director) displayLines(ctx context.Context, r *run, w *watcher) {
	var mu sync.Mutex
	write := func(line string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(d.o.Out, line)
	}
	write(d.view(r, w).heading())
	r.journal.listen(func(e Event) { write(e.line()) })
	defer r.journal.listen(nil)
	tick := time.NewTicker(statusTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			write(d.view(r, w).statusLine())
		}
	}
}
