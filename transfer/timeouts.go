package transfer

import "time"

// Timeouts of a connection and of a transfer. Zero fields take the defaults.
type Timeouts struct {
	Idle  time.Duration // nothing heard from the peer: give up the connection (default 5 s)
	Ping  time.Duration // between signs of life (default 1 s)
	Hello time.Duration // for the whole handshake, and for a request to be accepted (default: Lease)
	Lease time.Duration // a transfer without its control connection is kept (default 3 s)
	Stop  time.Duration // a frame that is being written may hold up Sender.Stop (default 50 ms)
}

func (t Timeouts) orDefault() Timeouts {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.Idle, 5*time.Second)
	def(&t.Ping, time.Second)
	def(&t.Lease, 3*time.Second)
	def(&t.Hello, t.Lease)
	def(&t.Stop, 50*time.Millisecond)
	return t
}
