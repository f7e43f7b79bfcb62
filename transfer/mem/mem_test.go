package mem

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// letters are frames of a digit and as many letters.
var letters = Framing{Head: 1, Size: func(b []byte) int {
	if b[0] < '0' || b[0] > '9' {
		return 0
	}
	return 1 + int(b[0]-'0')
}}

// transports are the two ways through a script: what to dial, and with what.
func transports(t *testing.T, script string, f func(t *testing.T, l net.Listener, dial func() (net.Conn, error))) {
	t.Helper()
	s, err := Parse(script)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("mem", func(t *testing.T) {
		n := NewNetwork(letters, s)
		defer n.Close()
		l, err := n.Listen("b")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f(t, l, func() (net.Conn, error) { return n.Dial(context.Background(), "b") })
	})
	t.Run("relay", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r, err := NewRelay(l.Addr().String(), letters, s)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		f(t, l, func() (net.Conn, error) { return net.Dial("tcp", r.Addr()) })
	})
}

func TestFaults(t *testing.T) {
	f := func(script, send, want string) {
		t.Helper()
		t.Run(script, func(t *testing.T) {
			transports(t, "down "+strings.ReplaceAll(script, "; ", "; down "), func(t *testing.T, l net.Listener, dial func() (net.Conn, error)) {
				go func() {
					c, err := l.Accept()
					if err == nil {
						io.WriteString(c, send)
						c.Close()
					}
				}()
				c, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(2 * time.Minute))
				got, err := io.ReadAll(c)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
				if string(got) != want {
					t.Errorf("%q, %v; want %q", got, err, want)
				}
			})
		})
	}
	const sent = "3abc2de1f0"
	f("drop frame 1", sent, "3abc1f0")
	f("drop byte 1", sent, "3bc2de1f0")
	f("drop byte 1; drop byte 2; corrupt byte 3", sent, "3s2de1f0")
	f("corrupt frame 1 +1", sent, "3abc2te1f0")
	f("corrupt frame 0", sent, "3arc2de1f0")
	f("reorder frame 0", sent, "2de3abc1f0")
	f("duplicate frame 2", sent, "3abc2de1f1f0")
	f("truncate frame 0", sent, "3a2de1f0")
	f("truncate frame 1 +1", sent, "3abc21f0")
	f("delay frame 2 5ms", sent, sent)
	f("kill byte 6", sent, "3abc2d")
	f("kill frame 1", sent, "3abc")
	f("half-close frame 2", sent, "3abc2de")
	f("corrupt byte 2", "xyz", "xyj") // no frames
	f("drop frame 7", sent, sent)
	f("drop frame 1", "3ab", "3ab") // ends in mid frame
}

// A script for one connection leaves the others alone, and a stall ends when
// the other side leaves.
func TestConnectionsAndStall(t *testing.T) {
	transports(t, "up conn 0 stall frame 1; down conn 1 kill byte 0", func(t *testing.T, l net.Listener, dial func() (net.Conn, error)) {
		heard, begun := make(chan string, 1), make(chan bool, 3)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "0")
				first := make([]byte, 2)
				n, _ := io.ReadFull(c, first)
				begun <- true
				b, _ := io.ReadAll(c)
				heard <- string(first[:n]) + string(b)
				c.Close()
			}
		}()
		for i, want := range []string{"1a", "1a1b", "1a1b"} {
			c, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "1a1b")
			if i == 0 {
				<-begun
				c.Close()
			} else {
				closeWrite(c)
			}
			if i == 1 {
				c.SetReadDeadline(time.Now().Add(2 * time.Minute))
				if b, _ := io.ReadAll(c); len(b) > 0 {
					t.Errorf("killed, and yet %q", b)
				}
				c.Close()
				<-heard
				continue
			}
			if got := <-heard; got != want {
				t.Errorf("connection %d: %q, want %q", i, got, want)
			}
			c.Close()
		}
	})
}

// A pipe is a connection: deadlines, halves, a writer that waits.
func TestPipe(t *testing.T) {
	a, b := pipe("x")
	defer a.Close()
	defer b.Close()
	a.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	go func() { // when it waits
		w := a.(*conn).w
		for full := false; !full; time.Sleep(time.Millisecond) {
			w.mu.Lock()
			full = len(w.buf) == pipeBuffer
			w.mu.Unlock()
		}
		a.SetWriteDeadline(time.Now())
	}()
	if n, err := a.Write(make([]byte, 2*pipeBuffer)); n != pipeBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %d, %v", n, err)
	}
	a.SetWriteDeadline(time.Time{})
	big := bytes.Repeat([]byte("terse"), pipeBuffer)
	go func() { a.Write(big); closeWrite(a) }()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got[pipeBuffer:], big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	b.Close()
	a.SetReadDeadline(time.Time{})
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after close: %v", err)
	}
}
