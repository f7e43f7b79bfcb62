package mem

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeBuffer is what one direction holds, like a socket's buffer: writers of
// more wait.
const pipeBuffer = 256 << 10

// pipe is a connection in memory. Unlike net.Pipe's it has buffers and can be
// closed by halves.
func pipe(addr string) (net.Conn, net.Conn) {
	there, back := newHalf(), newHalf()
	return &conn{r: back, w: there, addr: address(addr)}, &conn{r: there, w: back, addr: address(addr)}
}

// half is one direction.
type half struct {
	mu            sync.Mutex
	changed       *sync.Cond
	buf           []byte
	ended, broken bool // no more will be written; nobody reads
	read, write   deadline
}

func newHalf() *half {
	h := &half{}
	h.changed = sync.NewCond(&h.mu)
	return h
}

// deadline is a time after which an operation fails.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (h *half) setDeadline(d *deadline, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changed.Broadcast()
		})
	}
	h.changed.Broadcast()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (h *half) Read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.broken:
			return 0, net.ErrClosed
		case h.read.passed():
			return 0, os.ErrDeadlineExceeded
		case len(h.buf) > 0:
			n := copy(b, h.buf)
			h.buf = h.buf[n:]
			h.changed.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		case len(b) == 0:
			return 0, nil
		}
		h.changed.Wait()
	}
}

func (h *half) Write(b []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.ended:
			return n, net.ErrClosed
		case h.broken:
			return n, syscall.EPIPE
		case h.write.passed():
			return n, os.ErrDeadlineExceeded
		case len(b) == 0:
			return n, nil
		case len(h.buf) < pipeBuffer:
			k := min(len(b), pipeBuffer-len(h.buf))
			h.buf = append(h.buf, b[:k]...)
			b, n = b[k:], n+k
			h.changed.Broadcast()
			continue
		}
		h.changed.Wait()
	}
}

func (h *half) end(broken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if broken {
		h.broken, h.buf = true, nil
	} else {
		h.ended = true
	}
	for _, d := range []*deadline{&h.read, &h.write} {
		if d.timer != nil && (broken || d == &h.write) {
			d.timer.Stop()
		}
	}
	h.changed.Broadcast()
}

// conn is one end of a pipe.
type conn struct {
	r, w *half
	addr address
}

func (c *conn) Read(b []byte) (int, error)  { return c.r.Read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.w.Write(b) }

// CloseWrite ends what is sent; the other end reads up to there.
func (c *conn) CloseWrite() error { c.w.end(false); return nil }

func (c *conn) Close() error {
	c.w.end(false)
	c.r.end(true)
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.addr }
func (c *conn) RemoteAddr() net.Addr { return c.addr }

func (c *conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	c.SetWriteDeadline(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.r.setDeadline(&c.r.read, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.w.setDeadline(&c.w.write, t)
	return nil
}
