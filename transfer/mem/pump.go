package mem

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// Framing says where the frames of a stream end. The zero value knows none.
type Framing struct {
	Head int                   // bytes from which the size is known
	Size func(head []byte) int // of the whole frame, 0 if this is none
}

// faults are a script at work on connections.
type faults struct {
	framing Framing
	stop    chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex
	script Script
	conns  int
	fired  []string
	open   map[net.Conn]bool
}

// Sever ends the connections that are there.
func (f *faults) Sever() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.open {
		c.Close()
	}
}

func (f *faults) track(c net.Conn, open bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = map[net.Conn]bool{}
	}
	if open {
		f.open[c] = true
	} else {
		delete(f.open, c)
	}
}

// Set replaces the script for the connections that are dialed from now on,
// which count from 0 again.
func (f *faults) Set(s Script) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script, f.conns, f.fired = s, 0, nil
}

// Fired lists the rules that have struck since the script was set.
func (f *faults) Fired() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.fired)
}

func (f *faults) strike(r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fired = append(f.fired, r.source)
}

// rules are those of the next connection.
func (f *faults) rules() (up, down []Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.conns
	f.conns++
	for _, r := range f.script {
		switch {
		case r.Conn >= 0 && r.Conn != n:
		case r.Up:
			up = append(up, r)
		default:
			down = append(down, r)
		}
	}
	return up, down
}

// join passes bytes between a dialer's connection and its target's until both
// directions have ended.
func (f *faults) join(dialer, target net.Conn) {
	up, down := f.rules()
	upEnded, downEnded := make(chan struct{}), make(chan struct{})
	both := func() { dialer.Close(); target.Close() }
	f.track(dialer, true)
	f.track(target, true)
	run := func(p *pump, ended chan struct{}) {
		defer f.running.Done()
		defer close(ended)
		if err := p.run(); errors.Is(err, io.EOF) {
			closeWrite(p.dst)
		} else {
			both()
		}
	}
	f.running.Add(3)
	go run(&pump{faults: f, rules: up, dst: target, src: dialer, other: downEnded}, upEnded)
	go run(&pump{faults: f, rules: down, dst: dialer, src: target, other: upEnded}, downEnded)
	go func() {
		defer f.running.Done()
		defer f.track(dialer, false)
		defer f.track(target, false)
		defer both()
		for _, c := range []chan struct{}{upEnded, downEnded} {
			select {
			case <-c:
			case <-f.stop:
				return
			}
		}
	}()
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
		return
	}
	c.Close()
}

// pump is one direction of one connection.
type pump struct {
	faults   *faults
	rules    []Rule
	dst, src net.Conn
	other    <-chan struct{} // closed when the other direction has ended

	frame int
	at    int64
	held  []byte // a frame that waits for the next one
}

// stallTakes is how much a stalled direction takes before it blocks its source.
const stallTakes = 256 << 10

var errKilled = errors.New("killed by the script")

// run ends with io.EOF where the source, or the script, has ended this
// direction only.
func (p *pump) run() error {
	for {
		b, err := p.read()
		if len(b) > 0 {
			if err := p.pass(b); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// read returns the next frame, or what else there is.
func (p *pump) read() ([]byte, error) {
	head := p.faults.framing.Head
	if head == 0 || p.frame < 0 {
		return p.readSome(nil)
	}
	b := make([]byte, head)
	if n, err := io.ReadFull(p.src, b); err != nil {
		return b[:n], noShort(err)
	}
	size := p.faults.framing.Size(b)
	if size < head {
		p.frame = -1 // nothing after this is known to be a frame
		return p.readSome(b)
	}
	b = append(b, make([]byte, size-head)...)
	n, err := io.ReadFull(p.src, b[head:])
	return b[:head+n], noShort(err)
}

func (p *pump) readSome(b []byte) ([]byte, error) {
	buf := make([]byte, 32<<10)
	n, err := p.src.Read(buf)
	return append(b, buf[:n]...), err
}

func noShort(err error) error {
	if err == io.ErrUnexpectedEOF {
		return io.EOF
	}
	return err
}

// pass does to one frame what the rules say and sends what is left of it.
func (p *pump) pass(b []byte) error {
	type strike struct {
		off  int64
		rule Rule
	}
	var strikes []strike
	for _, r := range p.rules {
		if off, ok := r.hit(p.frame, p.at, int64(len(b))); ok {
			strikes = append(strikes, strike{off, r})
		}
	}
	slices.SortStableFunc(strikes, func(a, b strike) int { return int(a.off - b.off) })
	p.at += int64(len(b))
	if p.frame >= 0 {
		p.frame++
	}
	waiting := p.held
	p.held = nil
	whole := b
	var after []byte // a duplicate
	for _, s := range strikes {
		p.faults.strike(s.rule)
		off := max(0, int(s.off)-(len(whole)-len(b))) // of what is not sent yet
		off = min(off, len(b))
		switch s.rule.Do {
		case Corrupt:
			if off < len(b) {
				b[off] ^= 0x10
			}
			continue
		case Duplicate:
			after = whole
			continue
		case Reorder:
			p.held, b = b, nil
			continue
		}
		if _, err := p.dst.Write(b[:off]); err != nil {
			return err
		}
		b = b[off:]
		switch s.rule.Do {
		case Truncate:
			b = nil
		case Drop:
			if s.rule.Frame >= 0 {
				b = nil
			} else if len(b) > 0 {
				b = b[1:]
			}
		default:
			if err := p.wait(s.rule); err != nil {
				return err
			}
		}
	}
	for _, part := range [][]byte{b, after, waiting} {
		if len(part) == 0 {
			continue
		}
		if _, err := p.dst.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// wait carries out a fault that holds or ends the stream.
func (p *pump) wait(r Rule) error {
	switch r.Do {
	case Kill:
		return errKilled
	case HalfClose:
		closeWrite(p.dst)
		io.Copy(io.Discard, p.src) // the source must not find out by a full buffer
		return io.EOF
	case Stall:
		// What a socket's buffers would hold disappears, then the source's writes
		// block; a source that ends before is noticed.
		if _, err := io.CopyN(io.Discard, p.src, stallTakes); err != nil {
			return errKilled
		}
		select {
		case <-p.other:
		case <-p.faults.stop:
		}
		return errKilled
	case Delay:
		select {
		case <-time.After(r.Wait):
		case <-p.faults.stop:
			return errKilled
		}
	}
	return nil
}
