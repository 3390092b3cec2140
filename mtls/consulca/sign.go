package consulca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	service        = "/hashicorp.consul.connectca.ConnectCAService/"
	signCall       = service + "Sign"
	watchRootsCall = service + "WatchRoots"
	tokenKey       = "x-consul-token"

	signTime    = 20 * time.Second
	connectTime = 5 * time.Second
	// firstRoots is how long the stream may take to give the list that Consul sends at once.
	firstRoots = 5 * time.Second
	pingAfter  = 30 * time.Second // Consul allows one in 15 s
	pingTime   = 10 * time.Second
)

// signer has certificates signed by Consul's CA over gRPC.
type signer struct {
	target target
	where  string // for messages
	token  func() (string, error)
	conn   *grpc.ClientConn
}

// newSigner connects nowhere yet.
func newSigner(address, caFile, serverName string, token func() (string, error)) (*signer, error) {
	t, err := parseTarget(address, caFile != "")
	if err != nil {
		return nil, fmt.Errorf("identity.consul.grpc_address %w", err)
	}
	creds := insecure.NewCredentials()
	if t.tls {
		c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName, NextProtos: []string{"h2"}}
		if c.ServerName == "" {
			c.ServerName = t.host
		}
		if caFile != "" {
			b, err := os.ReadFile(caFile)
			if err != nil {
				return nil, fmt.Errorf("identity.consul.grpc_ca_file: %w", err)
			}
			c.RootCAs = x509.NewCertPool()
			if !c.RootCAs.AppendCertsFromPEM(b) {
				return nil, fmt.Errorf("identity.consul.grpc_ca_file: %s has no certificate", caFile)
			}
		}
		creds = credentials.NewTLS(c)
	}
	s := &signer{target: t, where: address, token: token}
	s.conn, err = grpc.NewClient(t.dial,
		grpc.WithTransportCredentials(creds), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: pauseFirst, Multiplier: 2, Jitter: 0.2, MaxDelay: pauseShort},
			MinConnectTimeout: connectTime,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTime}),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(maxGRPCAnswer)),
	)
	if err != nil {
		return nil, fmt.Errorf("identity.consul.grpc_address: %w", err)
	}
	return s, nil
}

func (s *signer) method() Method { return MethodSign }

func (s *signer) close() { _ = s.conn.Close() }

// authorized adds the present token to a call.
func (s *signer) authorized(ctx context.Context) (context.Context, error) {
	token, err := s.token()
	if err != nil || token == "" {
		return ctx, err
	}
	return metadata.AppendToOutgoingContext(ctx, tokenKey, token), nil
}

// watch gives every list of roots until ctx ends or the stream does.
func (s *signer) watch(ctx context.Context, _ place, got func(event)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, err := s.authorized(ctx)
	if err != nil {
		return err
	}
	late := time.AfterFunc(firstRoots, func() { cancel(errSilent) })
	defer late.Stop()
	stream, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, watchRootsCall)
	if err == nil {
		err = stream.SendMsg(&watchRequest{})
	}
	if err == nil {
		err = stream.CloseSend()
	}
	for err == nil {
		var m watchResponse
		if err = stream.RecvMsg(&m); err != nil {
			break
		}
		late.Stop()
		var r *roots
		if r, err = newRoots(m.domain, m.active, m.roots); err == nil {
			got(event{roots: r})
		}
	}
	if errors.Is(context.Cause(ctx), errSilent) {
		err = errSilent
	}
	return s.explain(err, "a token of any service")
}

var errSilent = status.Errorf(codes.DeadlineExceeded, "no roots within %s", firstRoots)

// issue has a new key certified.
func (s *signer) issue(ctx context.Context, p place, id string) (*leaf, error) {
	key, csr, err := newKey(id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, signTime)
	defer cancel()
	if ctx, err = s.authorized(ctx); err != nil {
		return nil, err
	}
	var answer signResponse
	if err := s.conn.Invoke(ctx, signCall, &signRequest{csr: csr}, &answer); err != nil {
		return nil, s.explain(err, fmt.Sprintf("service:write on %q", p.service))
	}
	l, err := newLeaf([]byte(answer.cert), key, MethodSign)
	if err != nil {
		return nil, fmt.Errorf("consul at %s signed: %w", s.where, err)
	}
	return l, nil
}

// explain words an error for an operator. need is what the token must be allowed.
func (s *signer) explain(err error, need string) error {
	if err == nil {
		return nil
	}
	remedy := ""
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated:
		remedy = "; the ACL token needs " + need
	case codes.Unimplemented:
		remedy = "; is this Consul's gRPC port?"
	case codes.Unavailable:
		remedy = "; is Consul's gRPC port (ports.grpc, ports.grpc_tls) on, and spoken to with or without TLS as it wants?"
	}
	return &callError{err: fmt.Errorf("consul's gRPC at %s: %w%s", s.where, err, remedy), code: status.Code(err)}
}

// callError is an error of a call that keeps its code.
type callError struct {
	err  error
	code codes.Code
}

// Error implements error.
func (e *callError) Error() string { return e.err.Error() }

// Unwrap returns what happened.
func (e *callError) Unwrap() error { return e.err }

// unreachable reports whether err says that nobody who could sign is there, as opposed to somebody who refuses.
func unreachable(err error) bool {
	var e *callError
	return errors.As(err, &e) && (e.code == codes.Unavailable || e.code == codes.Unimplemented || e.code == codes.DeadlineExceeded)
}
