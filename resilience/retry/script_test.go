package retry

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// TestScripts runs testdata/*.txt. A file is a sequence of blocks parted by
// blank lines; a block is its commands, a line "----", and their output.
// Lines that begin with # are comments. See machine.run for the commands.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(string(want))
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; run with -update and look at the change\n--- got\n%s--- want\n%s", file, got, want)
			}
		})
	}
}

// runScript returns the script with the output its commands have now.
func runScript(script string) []byte {
	m := newMachine()
	var out bytes.Buffer
	for i, block := range strings.Split(strings.TrimRight(script, "\n"), "\n\n") {
		if i > 0 {
			out.WriteByte('\n')
		}
		var result strings.Builder
		commands := false
		for line := range strings.Lines(block + "\n") {
			line = strings.TrimSpace(line)
			if line == "----" {
				break
			}
			fmt.Fprintln(&out, line)
			if line == "" || line[0] == '#' {
				continue
			}
			commands = true
			if err := m.run(&result, strings.Fields(line)); err != nil {
				fmt.Fprintf(&result, "error in %q: %v\n", line, err)
			}
		}
		if commands {
			fmt.Fprintf(&out, "----\n%s", result.String())
		}
	}
	return out.Bytes()
}

// machine is a Config with its Budget and a clock.
type machine struct {
	cfg Config
	b   *Budget
	now time.Duration
}

func newMachine() *machine {
	cfg := Default()
	return &machine{cfg: cfg, b: NewBudget(cfg)}
}

func (m *machine) run(out *strings.Builder, f []string) error {
	args := f[1:]
	switch f[0] {
	case "config": // config KEY=VALUE...
		for _, arg := range args {
			key, value, _ := strings.Cut(arg, "=")
			if err := setKey(&m.cfg, key, value); err != nil {
				return err
			}
		}
		m.b.SetConfig(m.cfg)
		return nil
	case "budget": // budget: what is left
		fmt.Fprintf(out, "%s %.6g\n", m.now, m.b.Balance(m.now))
		return nil
	case "counts":
		for _, why := range Whys() {
			if n := m.b.Decisions(why); n > 0 {
				fmt.Fprintf(out, "%s %d\n", why, n)
			}
		}
		return nil
	case "failed": // failed CLASS [CONDITION] KEY=VALUE... : asks Decide
		return m.failed(out, args)
	}
	if len(args) == 0 {
		return fmt.Errorf("needs an argument")
	}
	if f[0] == "advance" {
		d, err := time.ParseDuration(args[0])
		m.now += d
		return err
	}
	n, err := strconv.Atoi(strings.TrimPrefix(args[0], "x"))
	if err != nil {
		return err
	}
	switch f[0] {
	case "requests": // requests N: so many first attempts
		for range n {
			m.b.Deposit(m.now)
		}
	case "withdraw": // withdraw N: so many retries are asked for
		given := 0
		for range n {
			if m.b.Withdraw(m.now) {
				given++
			}
		}
		fmt.Fprintf(out, "%s %d of %d\n", m.now, given, n)
	default:
		return fmt.Errorf("unknown command")
	}
	return nil
}

func (m *machine) failed(out *strings.Builder, args []string) error {
	q := Question{Attempt: 1, Idempotent: true, BodyReplayable: true}
	r := uint64(math.MaxUint64)
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		n, _ := strconv.Atoi(value)
		d, _ := time.ParseDuration(value)
		switch key {
		case "never":
			q.Retryable = Never
		case "unsent":
			q.Retryable = IfUnsent
		case "idempotent":
			q.Retryable = IfIdempotent
		case "post":
			q.Idempotent = false
		case "nobody":
			q.BodyReplayable = false
		case "attempt":
			q.Attempt = n
		case "status":
			q.Status = uint16(n)
		case "after":
			q.RetryAfter = d
		case "grpc":
			if err := q.GRPC.UnmarshalText([]byte(value)); err != nil {
				return err
			}
			q.Status = 200
		case "pushback":
			q.RetryAfter, q.Pushback = ParsePushback([]byte(value))
		case "elapsed":
			q.Elapsed = d
		case "left":
			q.Deadline = d
		case "r": // r=0..100: the random word in percent
			r = uint64(float64(n) / 100 * (1 << 63) * 1.9999999)
		default:
			if err := q.Condition.UnmarshalText([]byte(key)); err != nil {
				return err
			}
		}
	}
	d := m.cfg.Decide(q, m.b, m.now, r)
	fmt.Fprintf(out, "%s", d.Why)
	if d.Again {
		fmt.Fprintf(out, " after %s", d.Wait.Round(time.Microsecond))
	}
	fmt.Fprintln(out)
	return nil
}

func setKey(c *Config, key, value string) error {
	n, numErr := strconv.ParseFloat(value, 64)
	d, durErr := time.ParseDuration(value)
	err := numErr
	switch key {
	case "mode":
		return c.Mode.UnmarshalText([]byte(value))
	case "attempts":
		c.Attempts = int(n)
	case "on":
		c.On, err = nil, nil
		for _, word := range strings.Split(value, ",") {
			var on Condition
			if err := on.UnmarshalText([]byte(word)); err != nil {
				return err
			}
			c.On = append(c.On, on)
		}
	case "grpc_statuses":
		c.GRPCStatuses, err = nil, nil
		for word := range strings.SplitSeq(value, ",") {
			var g GRPCStatus
			if err := g.UnmarshalText([]byte(word)); err != nil {
				return err
			}
			c.GRPCStatuses = append(c.GRPCStatuses, g)
		}
	case "backoff_base":
		c.BackoffBase, err = d, durErr
	case "backoff_max":
		c.BackoffMax, err = d, durErr
	case "budget_percent":
		c.BudgetPercent = n
	case "budget_min_per_second":
		c.BudgetMinPerSecond = n
	case "non_idempotent":
		c.NonIdempotent, err = value == "true", nil
	case "retry_after_max":
		c.RetryAfterMax, err = d, durErr
	default:
		return fmt.Errorf("unknown key %q", key)
	}
	return err
}
