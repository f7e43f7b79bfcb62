package mem

import "net"

// Relay stands between dialers and a real address.
type Relay struct {
	faults
	l      net.Listener
	target string
}

// NewRelay listens on a free loopback port for connections to target.
func NewRelay(target string, framing Framing, s Script) (*Relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{l: l, target: target}
	r.framing, r.script, r.stop = framing, s, make(chan struct{})
	r.running.Add(1)
	go r.serve()
	return r, nil
}

// Addr is where to dial instead of the target.
func (r *Relay) Addr() string { return r.l.Addr().String() }

// Close ends the relay and all its connections.
func (r *Relay) Close() error {
	close(r.stop)
	err := r.l.Close()
	r.running.Wait()
	return err
}

func (r *Relay) serve() {
	defer r.running.Done()
	for {
		in, err := r.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.target)
		if err != nil {
			in.Close()
			continue
		}
		r.join(in, out)
	}
}
