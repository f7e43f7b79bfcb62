package transfer

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/terse-llm/terse"
)

// A worker whose port answers and that says nothing, or stops in the middle of
// the handshake, is given up when a lease would be, not when a connection is.
func TestSilentHandshake(t *testing.T) {
	g := geometry(t, "hq3")
	for name, say := range map[string]func(*link){
		"from the start":    func(*link) {},
		"after a challenge": func(l *link) { l.expect(frameOpen); l.sendJSON(frameChallenge, opening{newNonce(), false}) },
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			accepted := make(chan net.Conn, 8)
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					say(newLink(conn, Timeouts{}.orDefault(), maxControl))
					accepted <- conn
				}
			}()
			c := client(t, g)
			c.Timeouts = Timeouts{Idle: time.Hour, Ping: time.Hour, Lease: 100 * time.Millisecond}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err = fetch(ctx, c, l.Addr().String(), "go", fullView(g, 70, func([]byte) {}), 70)
			if terse.CodeOf(err) != terse.CodeWorkerLost {
				t.Errorf("got %v", err)
			}
			for range len(accepted) {
				(<-accepted).Close()
			}
		})
	}
}
