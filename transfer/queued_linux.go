package transfer

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// queued is how many bytes the connection has taken and the peer's machine not
// acknowledged: 0 where the system does not say.
func (l *link) queued() int {
	conn := l.conn
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	err = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if err != nil {
		return 0
	}
	return n
}
