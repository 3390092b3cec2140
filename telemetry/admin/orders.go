package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/outrigger-mesh/outrigger/resilience/hand"
)

// Bounds of what an order may say.
const (
	maxOrderEndpoints = 64
	maxOrderName      = 255 // bytes of a name
	maxOrderReason    = 200 // bytes
	minOrderFor       = time.Second
)

// Order is what POST /endpoints/{eject,pin,release} takes as JSON.
type Order struct {
	Cluster string `json:"cluster"`
	// Endpoints are addresses, or names of instances. Only release may have none,
	// which takes back all orders of the cluster.
	Endpoints []string `json:"endpoints,omitempty"`
	// For is how long it holds, from 1s to 24h; 5m when it is empty. Not for
	// release.
	For string `json:"for,omitempty"`
	// Reason is for those who come across the order.
	Reason string `json:"reason,omitempty"`

	// Act is eject, pin or release: the last part of the path.
	Act string `json:"-"`
	// By is who sent it: the address of the peer.
	By string `json:"-"`
	// Time is For; 0 when it is empty.
	Time time.Duration `json:"-"`
}

// OrderView is the answer to an Order.
type OrderView struct {
	Act       string    `json:"act"`
	Cluster   string    `json:"cluster"`
	Endpoints []string  `json:"endpoints"`      // addresses
	Until     time.Time `json:"until,omitzero"` // not for release
}

// OrderError is an order that is not obeyed.
type OrderError struct {
	Status int // of the response
	Err    error
}

func (e *OrderError) Error() string { return e.Err.Error() }
func (e *OrderError) Unwrap() error { return e.Err }

// order serves POST /endpoints/{act}. Only programs and the API's own pages get
// here: see New. That it must be JSON keeps a form of another site out once more.
func (s *Server) order(act string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		o, err := readOrder(r, act)
		var v OrderView
		if err == nil {
			o.By = r.RemoteAddr
			v, err = s.opts.Views.Order(o)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		s.page(w, r, http.StatusOK, v, func(w io.Writer) { WriteOrder(w, v, s.opts.Now()) })
	}
}

// refuse says why an order is not obeyed.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var oe *OrderError
	if errors.As(err, &oe) {
		status = oe.Status
	}
	http.Error(w, Plain(err.Error()), status)
}

// WriteOrder says in a line what was done.
func WriteOrder(w io.Writer, v OrderView, now time.Time) {
	done := map[string]string{"eject": "ejected", "pin": "pinned", "release": "released"}[v.Act]
	_, _ = fmt.Fprintf(w, "%s: %s %s", Plain(v.Cluster), done, Plain(strings.Join(v.Endpoints, ", ")))
	if !v.Until.IsZero() {
		_, _ = fmt.Fprintf(w, " for %s, until %s", Short(v.Until.Sub(now)), v.Until.Local().Format(time.TimeOnly))
	}
	_, _ = fmt.Fprintln(w)
}

// readJSON reads the body of an order into v.
func readJSON(r *http.Request, v any) error {
	bad := func(status int, format string, args ...any) error {
		return &OrderError{status, fmt.Errorf(format, args...)}
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return bad(http.StatusUnsupportedMediaType, "send JSON with Content-Type: application/json, as curl --json does")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return bad(http.StatusRequestEntityTooLarge, "the order is longer than %d bytes", maxBodyBytes)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return bad(http.StatusBadRequest, "not an order: %v", err)
	}
	if d.More() {
		return bad(http.StatusBadRequest, "not an order: something follows it")
	}
	return nil
}

func readOrder(r *http.Request, act string) (*Order, error) {
	bad := func(status int, format string, args ...any) (*Order, error) {
		return nil, &OrderError{status, fmt.Errorf(format, args...)}
	}
	o := &Order{Act: act}
	err := readJSON(r, o)
	if err != nil {
		return nil, err
	}
	switch {
	case o.Cluster == "":
		return bad(http.StatusBadRequest, "cluster is missing")
	case len(o.Endpoints) == 0 && act != "release":
		return bad(http.StatusBadRequest, "endpoints are missing")
	case len(o.Endpoints) > maxOrderEndpoints:
		return bad(http.StatusBadRequest, "more than %d endpoints", maxOrderEndpoints)
	case o.For != "" && act == "release":
		return bad(http.StatusBadRequest, "a release is for good; leave out for")
	case len(o.Reason) > maxOrderReason || !utf8.ValidString(o.Reason) || strings.ContainsFunc(o.Reason, unicode.IsControl):
		return bad(http.StatusBadRequest, "reason must be one line of at most %d bytes", maxOrderReason)
	}
	for _, e := range o.Endpoints {
		if e == "" || len(e) > maxOrderName {
			return bad(http.StatusBadRequest, "endpoints must be addresses or names of 1 to %d bytes", maxOrderName)
		}
	}
	if o.For != "" {
		if o.Time, err = time.ParseDuration(o.For); err != nil || o.Time < minOrderFor || o.Time > hand.MaxFor {
			return bad(http.StatusBadRequest, "for is %.32q; use a time from 1s to 24h, such as 5m", o.For)
		}
	}
	return o, nil
}
