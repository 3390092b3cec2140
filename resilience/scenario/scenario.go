// Package scenario is the language in which a workload is described for a simulation: services, arrivals, failures in time, policies, expectations.
package scenario

import (
	"time"

	"github.com/outrigger-mesh/outrigger/config"
)

// Scenario is a workload and what is expected of it.
type Scenario struct {
	// What the scenario shows, in a line.
	Title string `yaml:"title"`
	// The seed of all randomness: the same seed gives the same run.
	Seed uint64 `yaml:"seed"`
	// How long requests arrive.
	Duration time.Duration `yaml:"duration"`
	// The first part of that, which is simulated but not judged.
	Warmup time.Duration `yaml:"warmup"`
	// What is called, by name.
	Services map[string]Service `yaml:"services"`
	// Where requests come from.
	Arrivals []Arrival `yaml:"arrivals"`
	// What goes wrong, and when.
	Failures []Failure `yaml:"failures"`
	// How each service is called, in the language of a proxy's configuration.
	Policies map[string]config.Policy `yaml:"policies"`
	// Other policies to compare, each in place of all of policies. Without any there is one run, with policies.
	Variants []Variant `yaml:"variants"`
	// What must come out, such as "goodput >= 99%".
	Expect []Expectation `yaml:"expect"`
}

// SetDefaults implements config.Defaulter.
func (s *Scenario) SetDefaults() { s.Seed, s.Duration = 1, time.Minute }

// Service is a number of endpoints of one kind.
type Service struct {
	// How many endpoints there are. They are known by their numbers from 1.
	Endpoints int `yaml:"endpoints"`
	// How many requests an endpoint works on at a time; others wait. 0: any number.
	Slots int `yaml:"slots"`
	// How many requests may wait at an endpoint; others are answered with 503 at once.
	Queue int `yaml:"queue"`
	// Whether the request that came last is taken first.
	LIFO bool `yaml:"lifo"`
	// How long an endpoint works on a request, without the calls that it makes.
	ServiceTime Distribution `yaml:"service_time"`
	// How long a request and its answer take on the way, together.
	Network time.Duration `yaml:"network"`
	// Whether an endpoint stops working on a request whose caller has gone.
	Cancels bool `yaml:"cancels"`
	// Whether the endpoints pass x-outrigger-retries on to those that they call, so that only the outermost proxy repeats
	// a request (retry.layer).
	PassesRetries bool `yaml:"passes_retries"`
	// What is called for each request, one after the other, through a proxy of the endpoint's own.
	Calls []Call `yaml:"calls"`
	// Endpoints that are not like the others.
	Unlike []Unlike `yaml:"unlike"`
}

// SetDefaults implements config.Defaulter.
func (s *Service) SetDefaults() {
	s.Endpoints, s.Queue, s.Network = 1, 1000, 500*time.Microsecond
}

// Call is one that an endpoint makes for each of its requests.
type Call struct {
	// The service that is called.
	Service string `yaml:"service"`
	// In how many of a hundred requests.
	Percent float64 `yaml:"percent"`
}

// SetDefaults implements config.Defaulter.
func (c *Call) SetDefaults() { c.Percent = 100 }

// Unlike is what differs in some endpoints of a service.
type Unlike struct {
	// Their numbers.
	Endpoints []int `yaml:"endpoints"`
	// In place of the service's own; 0 as there.
	Slots int `yaml:"slots"`
	// In place of the service's own.
	ServiceTime *Distribution `yaml:"service_time"`
	// Their share of the traffic beside that of others, which is 1.
	Weight int `yaml:"weight"`
}

// Arrival is one stream of requests.
type Arrival struct {
	// The service that is called.
	To string `yaml:"to"`
	// How many proxies they come through, each with a view of its own.
	Proxies int `yaml:"proxies"`
	// Requests a second, all proxies together.
	Rate float64 `yaml:"rate"`
	// How the rate changes.
	Steps []Step `yaml:"steps"`
	// How requests follow each other: at random or evenly.
	Process string `yaml:"process" enum:"poisson,even"`
	// In place of a rate: so many users, each with one request at a time.
	Users int `yaml:"users"`
	// How long a user waits before the next request.
	Think Distribution `yaml:"think"`
	// Of how many different keys the requests are, for balancing by hash. 0: they have none.
	Keys int `yaml:"keys"`
	// How many of a hundred requests are of a method that is not idempotent.
	NonIdempotentPercent float64 `yaml:"non_idempotent_percent"`
}

// SetDefaults implements config.Defaulter.
func (a *Arrival) SetDefaults() { a.Proxies, a.Process = 1, Poisson }

// The values of Arrival.Process.
const (
	Poisson = "poisson"
	Even    = "even"
)

// Step is a change of a rate.
type Step struct {
	// When it begins.
	At time.Duration `yaml:"at"`
	// The new rate, in requests a second.
	Rate float64 `yaml:"rate"`
	// How long the rate takes to get there, evenly.
	Over time.Duration `yaml:"over"`
}

// Failure is something that goes wrong with endpoints for a time.
type Failure struct {
	// When it begins.
	At time.Duration `yaml:"at"`
	// How long it lasts. 0: to the end.
	For time.Duration `yaml:"for"`
	// The service it happens to.
	Service string `yaml:"service"`
	// The numbers of the endpoints. Empty: all of them.
	Endpoints []int `yaml:"endpoints"`
	// What happens, such as "slow x20".
	Fault Fault `yaml:"fault"`
}

// End is when the failure is over: at most end.
func (f *Failure) End(end time.Duration) time.Duration {
	if f.For == 0 || f.For > end-f.At {
		return end
	}
	return f.At + f.For
}

// Variant is a set of policies with a name.
type Variant struct {
	// What it is called in the results.
	Name string `yaml:"name"`
	// How each service is called.
	Policies map[string]config.Policy `yaml:"policies"`
}

// Runs returns the variants that are run: those given, else one without a name.
func (s *Scenario) Runs() []Variant {
	if len(s.Variants) > 0 {
		return s.Variants
	}
	return []Variant{{Policies: s.Policies}}
}

// Entry is the service that the first stream of requests goes to.
func (s *Scenario) Entry() string { return s.Arrivals[0].To }

// Load reads the scenario in the file at path. The error has every mistake with
// its place, as config.Problems.
func Load(path string) (*Scenario, error) {
	s := &Scenario{}
	if err := config.LoadDocument(path, s, s.Validate); err != nil {
		return nil, err
	}
	return s, nil
}

// Parse reads a scenario from data; file is its name in messages.
func Parse(file string, data []byte) (*Scenario, error) {
	s := &Scenario{}
	if err := config.ParseDocument(file, data, s, s.Validate); err != nil {
		return nil, err
	}
	return s, nil
}
