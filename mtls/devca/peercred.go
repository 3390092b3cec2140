package devca

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// caller is a process at the other end of the socket, as it was when it connected.
type caller struct {
	pid      int32
	uid, gid uint32
	exe      string
	started  uint64
}

// AuthType implements credentials.AuthInfo.
func (caller) AuthType() string { return "peercred" }

func (c caller) String() string {
	return fmt.Sprintf("pid %d, uid %d, gid %d, executable %q", c.pid, c.uid, c.gid, c.exe)
}

// peerCredentials is the gRPC server's view of SO_PEERCRED (unix(7)): no
// encryption, and the kernel's word for who connected.
type peerCredentials struct{}

var _ credentials.TransportCredentials = peerCredentials{}

// ServerHandshake implements credentials.TransportCredentials.
func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.New("devca: callers are known on Unix sockets only")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, nil, err
	}
	if credErr != nil {
		return nil, nil, fmt.Errorf("devca: peer credentials: %w", credErr)
	}
	c := caller{pid: cred.Pid, uid: cred.Uid, gid: cred.Gid}
	// Both may be unreadable: the process may be gone or belong to somebody else.
	// Selectors that need them then do not match.
	before, err := processStart(c.pid)
	if err == nil {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.pid))
		// Unchanged start time: the link was that of the same process.
		if after, err := processStart(c.pid); err == nil && after == before {
			c.started = before
			// The kernel's mark of an executable replaced since it was started.
			c.exe = strings.TrimSuffix(exe, " (deleted)")
		}
	}
	return conn, c, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("devca: credentials of a server only")
}

// Info implements credentials.TransportCredentials.
func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

// Clone implements credentials.TransportCredentials.
func (p peerCredentials) Clone() credentials.TransportCredentials { return p }

// OverrideServerName implements credentials.TransportCredentials.
func (peerCredentials) OverrideServerName(string) error { return nil }

func callerFrom(ctx context.Context) (caller, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, false
	}
	c, ok := p.AuthInfo.(caller)
	return c, ok
}
