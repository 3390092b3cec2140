package devca

import (
	"context"
	"crypto/x509"
	"log/slog"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// api answers the X.509 half of the SPIFFE Workload API. The JWT and WIT methods
// are answered Unimplemented, as the standard allows for profiles not offered.
type api struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	server *Server
}

// checkHeader asks for the security header of the SPIFFE Workload Endpoint
// standard, section 5, which a browser or proxy tricked into calling does not send.
func checkHeader(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("workload.spiffe.io"); len(v) != 1 || v[0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing from request: workload.spiffe.io: true")
	}
	return nil
}

func checkUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := checkHeader(ctx); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func checkStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := checkHeader(stream.Context()); err != nil {
		return err
	}
	return next(srv, stream)
}

// FetchX509SVID streams the caller's X509-SVIDs: at once, when half of their
// life is over, and when its entries change.
func (a *api) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	s := a.server
	c, ok := callerFrom(stream.Context())
	if !ok {
		return status.Error(codes.Internal, "caller is not known")
	}
	var sent []Entry
	var rotate <-chan time.Time
	for due := true; ; {
		entries, changed := s.entitled(c)
		if len(entries) == 0 {
			s.log.Warn("no identity issued", slog.String("caller", c.String()))
			return status.Error(codes.PermissionDenied, "no identity issued")
		}
		if due || !sameGrants(sent, entries) {
			resp, err := s.issue(entries)
			if err != nil {
				s.log.Error("certificate not issued", slog.Any("error", err))
				return status.Error(codes.Unavailable, "certificate not issued")
			}
			if err := stream.Send(resp); err != nil {
				return err
			}
			for _, e := range entries {
				s.log.Debug("X509-SVID issued", slog.String("id", e.ID.String()), slog.String("caller", c.String()))
			}
			sent, rotate, due = entries, time.After(s.ttl/2), false
		}
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-changed:
		case <-rotate:
			due = true
		}
	}
}

// FetchX509Bundles streams the trust bundles. They do not change while the
// server runs, so there is one message.
func (a *api) FetchX509Bundles(_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	s := a.server
	c, ok := callerFrom(stream.Context())
	if !ok {
		return status.Error(codes.Internal, "caller is not known")
	}
	if entries, _ := s.entitled(c); len(entries) == 0 {
		return status.Error(codes.PermissionDenied, "no identity issued")
	}
	bundles := map[string][]byte{"spiffe://" + s.ca.domain: s.ca.root.Raw}
	for domain, der := range s.federated {
		bundles[domain] = der
	}
	if err := stream.Send(&workload.X509BundlesResponse{Bundles: bundles}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return status.FromContextError(stream.Context().Err()).Err()
}

func (s *Server) issue(entries []Entry) (*workload.X509SVIDResponse, error) {
	resp := &workload.X509SVIDResponse{FederatedBundles: s.federated}
	for _, e := range entries {
		cert, err := s.ca.Issue(e.ID, s.ttl)
		if err != nil {
			return nil, err
		}
		key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			return nil, err
		}
		resp.Svids = append(resp.Svids, &workload.X509SVID{
			SpiffeId:    e.ID.String(),
			X509Svid:    cert.Certificate[0],
			X509SvidKey: key,
			Bundle:      s.ca.root.Raw,
			Hint:        e.Hint,
		})
	}
	return resp, nil
}

func sameGrants(a, b []Entry) bool {
	return slices.EqualFunc(a, b, func(x, y Entry) bool { return x.ID == y.ID && x.Hint == y.Hint })
}
