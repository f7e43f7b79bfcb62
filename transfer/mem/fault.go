package mem

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Fault is one thing done to a stream of bytes at an offset.
type Fault struct {
	At   int64 // byte offset in the stream
	Do   Action
	Wait time.Duration // Delay only
}

// Action is a kind of fault.
type Action string

// The faults that scripts know.
const (
	Corrupt Action = "corrupt" // flip one bit of the byte at the offset
	Drop    Action = "drop"    // leave that byte out
	Cut     Action = "cut"     // close both directions there
	Stall   Action = "stall"   // say nothing more, but stay open
	Delay   Action = "delay"   // pause there
)

// ParseScript reads faults like "corrupt@1000; delay@5000=20ms; cut@9000".
func ParseScript(s string) ([]Fault, error) {
	var faults []Fault
	for item := range strings.SplitSeq(s, ";") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		f, err := parseFault(item)
		if err != nil {
			return nil, fmt.Errorf("cannot read fault %q: %w", item, err)
		}
		if len(faults) > 0 && faults[len(faults)-1].At > f.At {
			return nil, fmt.Errorf("cannot read fault %q: offsets must rise", item)
		}
		faults = append(faults, f)
	}
	return faults, nil
}

func parseFault(item string) (Fault, error) {
	action, rest, ok := strings.Cut(item, "@")
	if !ok {
		return Fault{}, errors.New("want ACTION@OFFSET")
	}
	f := Fault{Do: Action(action)}
	offset, wait, hasWait := strings.Cut(rest, "=")
	var err error
	if f.At, err = strconv.ParseInt(offset, 10, 64); err != nil || f.At < 0 {
		return f, fmt.Errorf("bad offset %q", offset)
	}
	switch f.Do {
	case Corrupt, Drop, Cut, Stall:
		if hasWait {
			return f, errors.New("only delay takes a time")
		}
	case Delay:
		if f.Wait, err = time.ParseDuration(wait); err != nil {
			return f, fmt.Errorf("bad delay %q", wait)
		}
	default:
		return f, fmt.Errorf("unknown action %q", action)
	}
	return f, nil
}

var errCut = errors.New("cut by script")

// pipe copies src to dst applying the faults; it returns when the stream ends
// or is cut. A stall blocks until stop closes.
func pipe(dst io.Writer, src io.Reader, faults []Fault, stop <-chan struct{}) error {
	buf := make([]byte, 32<<10)
	var at int64
	for {
		want := int64(len(buf))
		if len(faults) > 0 {
			want = min(want, max(1, faults[0].At-at)) // stop right before the next fault
			if faults[0].At == at {
				want = 1
			}
		}
		n, err := src.Read(buf[:want])
		if n > 0 {
			out := buf[:n]
			for len(faults) > 0 && faults[0].At == at {
				var ferr error
				if out, ferr = faults[0].apply(out, stop); ferr != nil {
					return ferr
				}
				faults = faults[1:]
			}
			at += int64(n)
			if _, werr := dst.Write(out); werr != nil {
				return werr
			}
		}
		if err != nil {
			return err
		}
	}
}

// apply does the fault to a one-byte slice at its offset.
func (f Fault) apply(b []byte, stop <-chan struct{}) ([]byte, error) {
	switch f.Do {
	case Corrupt:
		if len(b) > 0 {
			b[0] ^= 0x10
		}
	case Drop:
		return nil, nil
	case Cut:
		return nil, errCut
	case Stall:
		<-stop
		return nil, errCut
	case Delay:
		select {
		case <-time.After(f.Wait):
		case <-stop:
			return nil, errCut
		}
	}
	return b, nil
}

// Relay stands between a dialer and a real address and does its faults to what
// flows back from the target (down) and towards it (up).
type Relay struct {
	l        net.Listener
	target   string
	up, down []Fault
	stop     chan struct{}
}

// NewRelay listens on a free loopback port.
func NewRelay(target string, up, down []Fault) (*Relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{l: l, target: target, up: up, down: down, stop: make(chan struct{})}
	go r.serve()
	return r, nil
}

// Addr is where to dial instead of the target.
func (r *Relay) Addr() string { return r.l.Addr().String() }

// Close ends the relay and all its connections.
func (r *Relay) Close() error {
	close(r.stop)
	return r.l.Close()
}

func (r *Relay) serve() {
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
		go r.join(in, out)
	}
}

func (r *Relay) join(in, out net.Conn) {
	ended := make(chan struct{}, 2)
	go func() { pipe(out, in, r.up, r.stop); ended <- struct{}{} }()
	go func() { pipe(in, out, r.down, r.stop); ended <- struct{}{} }()
	select {
	case <-ended:
	case <-r.stop:
	}
	in.Close()
	out.Close()
	<-ended
}
