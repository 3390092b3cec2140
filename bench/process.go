package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/bench/procstat"
)

// stopPatience is how long a process may take to end after SIGTERM before it
// is killed with its descendants.
const stopPatience = 500 * time.Millisecond

// process is a child with its output in a file.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// spawner starts processes from one thread that lives as long as the run: a
// child takes over the core that its parent's thread is bound to, and is
// killed by the kernel when that thread ends, so none outlives the runner.
type spawner struct {
	requests chan spawnRequest
	done     chan struct{}
}

type spawnRequest struct {
	cmd   *exec.Cmd
	cores []int
	reply chan error
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan spawnRequest), done: make(chan struct{})}
	return s
}

// run serves requests until close.
func (s *spawner) run() {
	defer close(s.done)
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for r := range s.requests {
		err := pinThread(0, r.cores...)
		if err == nil {
			err = r.cmd.Start()
		}
		r.reply <- err
	}
}

// close ends run, and with it whatever it started that still lives.
func (s *spawner) close() {
	close(s.requests)
	<-s.done
}

// start starts a command on some cores (-1: any) with its output in dir/name.log.
func (s *spawner) start(name, dir string, argv []string, cores ...int) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	// A process group of its own keeps the terminal's Ctrl-C from it: the
	// runner ends it in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	reply := make(chan error)
	s.requests <- spawnRequest{p.cmd, cores, reply}
	if err := <-reply; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is read from ProcessState
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// ended describes a process that ended by itself, nil while it runs.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %s; its last words:\n%s", p.name, p.cmd.ProcessState, tail(p.log))
	default:
		return nil
	}
}

// stop ends the process and its descendants and waits for them.
func (p *process) stop() {
	tree, _ := procstat.Tree(p.pid()) // if /proc cannot be read there is still the process itself
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
	// Only pids that still belong to the tree: one whose process has ended
	// may be in use again.
	for _, pid := range tree {
		if pid != p.pid() && processGroup(pid) == p.pid() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

func processGroup(pid int) int {
	group, err := unix.Getpgid(pid)
	if err != nil {
		return -1
	}
	return group
}

// tail is the end of a log file.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(text) > 2000 {
		text = text[len(text)-2000:]
	}
	return string(text)
}

// pinThread binds a thread (0: the calling one) to cores; -1 as the first
// leaves it as it is.
func pinThread(tid int, cores ...int) error {
	if cores[0] < 0 {
		return nil
	}
	var set unix.CPUSet
	for _, core := range cores {
		set.Set(core)
	}
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("bind to cores %v: %w", cores, err)
	}
	return nil
}

// pinSelf binds all threads of this process to cores; later ones inherit it.
func pinSelf(cores ...int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("bind to cores %v: %w", cores, err)
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := pinThread(tid, cores...); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// cores are the ones that this process may run on.
func cores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("which cores may be used: %w", err)
	}
	var list []int
	for i := 0; len(list) < set.Count(); i++ {
		if set.IsSet(i) {
			list = append(list, i)
		}
	}
	return list, nil
}

// chooseCores picks a core for the proxy and one for load generator and
// origin: the last and the first allowed one unless told, none (-1) when
// there is only one.
func chooseCores(allowed []int, proxy, load int) (int, int, error) {
	if len(allowed) < 2 {
		return -1, -1, nil
	}
	if proxy < 0 {
		proxy = allowed[len(allowed)-1]
		if proxy == load {
			proxy = allowed[len(allowed)-2]
		}
	}
	if load < 0 {
		load = allowed[0]
		if load == proxy {
			load = allowed[1]
		}
	}
	for _, core := range []int{proxy, load} {
		if !slices.Contains(allowed, core) {
			return 0, 0, fmt.Errorf("core %d is not among the allowed ones %v", core, allowed)
		}
	}
	return proxy, load, nil
}

// pause waits for d or the end of the context.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
