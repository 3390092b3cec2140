package check

import (
	"bytes"
	"encoding/binary"
	"io"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/resilience/health"
)

// maxMessage bounds the answer of a health service, which takes two bytes.
const maxMessage = 4 << 10

// grpc calls grpc.health.v1.Health/Check.
func (c *check) grpc() health.Result {
	left := max(time.Until(c.deadline).Milliseconds(), 1)
	body := healthRequest(c.cfg.GRPC.Service)
	head := []byte("POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: " + c.e.Cluster() +
		"\r\nte: trailers\r\ncontent-type: application/grpc\r\ncontent-length: " + strconv.Itoa(len(body)) +
		"\r\ngrpc-timeout: " + strconv.FormatInt(left, 10) + "m\r\nuser-agent: " + UserAgent + "\r\n\r\n")
	return c.stream(head, body, http1.MethodPost, c.grpcAnswer)
}

// healthRequest is a HealthCheckRequest{service} as a gRPC message.
func healthRequest(service string) []byte {
	var msg []byte
	if service != "" {
		msg = append(msg, 1<<3|2) // field 1, length-delimited
		msg = binary.AppendUvarint(msg, uint64(len(service)))
		msg = append(msg, service...)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
}

func (c *check) grpcAnswer(st *http2.Stream, resp *http1.Response) health.Result {
	if resp.Status != 200 {
		return health.Result{Cause: health.Status, Detail: "HTTP " + strconv.Itoa(resp.Status)}
	}
	if v, _ := resp.Get(http1.ContentType); !bytes.HasPrefix(v.Of(st.Head), []byte("application/grpc")) {
		return protocol("the answer is not gRPC")
	}
	if st.Ended {
		return c.grpcStatus(st.Head, nil)
	}
	var body []byte
	for {
		b, err := st.Peek()
		if err == io.EOF {
			break
		}
		if err != nil {
			return broken(err, "reading the answer")
		}
		if len(body)+len(b) > maxMessage {
			return protocol("the answer is too long for a health service")
		}
		body = append(body, b...)
		st.Discard(len(b))
	}
	return c.grpcStatus(st.Trailers(), body)
}

// grpcStatus judges the answer by its status, which is among lines, and its
// message.
func (c *check) grpcStatus(lines, body []byte) health.Result {
	status, ok := fieldOf(lines, "grpc-status")
	if !ok {
		return protocol("the answer has no grpc-status")
	}
	switch status {
	case "0":
		return c.serving(body)
	case "5":
		return health.Result{Cause: health.NoService, Detail: "the health service does not know " + strconv.Quote(c.cfg.GRPC.Service)}
	case "12":
		return health.Result{Cause: health.NoService, Detail: "the endpoint has no gRPC health service"}
	}
	text := "gRPC status " + status
	if m, _ := fieldOf(lines, "grpc-message"); m != "" {
		text += ": " + m
	}
	return health.Result{Cause: health.Status, Detail: clip(text)}
}

// serving judges a HealthCheckResponse.
func (c *check) serving(body []byte) health.Result {
	status, ok := servingStatus(body)
	if !ok {
		return protocol("the answer is no HealthCheckResponse")
	}
	switch status {
	case 1:
		return health.Result{}
	case 2:
		return health.Result{Cause: health.NotServing, Detail: "NOT_SERVING"}
	case 3:
		return health.Result{Cause: health.NoService, Detail: "SERVICE_UNKNOWN"}
	}
	return health.Result{Cause: health.Status, Detail: "serving status " + strconv.FormatUint(status, 10)}
}

// servingStatus reads field 1 of the one message in body, which must not be
// compressed as nothing was said of taking that. Other fields are skipped; the
// last value counts, and without one it is 0.
func servingStatus(body []byte) (status uint64, ok bool) {
	if len(body) < 5 || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return 0, false
	}
	for b := body[5:]; len(b) > 0; {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		var size uint64
		switch tag & 7 {
		case 0: // varint
			v, n := binary.Uvarint(b)
			if n <= 0 || tag>>3 == 0 {
				return 0, false
			}
			if tag>>3 == 1 {
				status = v
			}
			size = uint64(n)
		case 1:
			size = 8
		case 2:
			v, n := binary.Uvarint(b)
			if n <= 0 || v > uint64(len(b)-n) {
				return 0, false
			}
			size = uint64(n) + v
		case 5:
			size = 4
		default:
			return 0, false
		}
		if size > uint64(len(b)) {
			return 0, false
		}
		b = b[size:]
	}
	return status, true
}

// fieldOf returns the value of the first of the field lines with that name.
func fieldOf(lines []byte, name string) (value string, ok bool) {
	for line := range bytes.Lines(lines) {
		k, v, found := bytes.Cut(line, []byte(":"))
		if found && bytes.EqualFold(k, []byte(name)) {
			return string(bytes.TrimSpace(v)), true
		}
	}
	return "", false
}
