package transfer

import (
	"net"
	"time"
)

// silentConn takes deadlines and nothing else; fuzzed receivers read from bytes.
type silentConn struct{ net.Conn }

func (silentConn) SetReadDeadline(time.Time) error  { return nil }
func (silentConn) SetWriteDeadline(time.Time) error { return nil }
func (silentConn) SetDeadline(time.Time) error      { return nil }
