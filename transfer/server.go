package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// Timeouts of a connection. Zero fields take the defaults.
type Timeouts struct {
	Idle  time.Duration // nothing heard from the peer: give up (default 5 s)
	Ping  time.Duration // between signs of life (default 1 s)
	Hello time.Duration // for the handshake (default 5 s)
}

func (t Timeouts) orDefault() Timeouts {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.Idle, 5*time.Second)
	def(&t.Ping, time.Second)
	def(&t.Hello, 5*time.Second)
	return t
}

// Handler serves one request: it sends KV through s while it is computed and
// returns the payload of Done. ctx ends when the peer goes away.
type Handler func(ctx context.Context, request []byte, s *Sender) (done []byte, err error)

// Server is the prefill side of the wire.
type Server struct {
	Hello    Hello
	Geometry *quant.Geometry
	Handler  Handler
	Timeouts Timeouts
	Logger   *slog.Logger
	MaxConns int           // beyond it a peer is told CodeOverloaded; 0 means 256
	Drain    time.Duration // how long requests may go on after Serve's ctx ended
}

// Serve accepts until ctx ends, then closes the listener, lets what runs finish
// within Drain, cancels the rest and waits for it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		l.Close()
		time.AfterFunc(s.Drain, cancel)
	})
	defer stop()
	limit := s.MaxConns
	if limit == 0 {
		limit = 256
	}
	slots := make(chan struct{}, limit)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				wg.Wait()
				return nil
			}
			return fmt.Errorf("cannot accept KV connections on %s: %w", l.Addr(), err)
		}
		select {
		case slots <- struct{}{}:
		default:
			s.turnAway(conn)
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			s.conn(running, conn)
		})
	}
}

func (s *Server) turnAway(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(time.Second))
	w := &writer{w: conn}
	sendError(w, &terse.Error{Code: terse.CodeOverloaded, Message: "too many KV transfers at once on worker " + s.Hello.Worker})
	conn.Close()
}

// conn runs one connection from handshake to Done.
func (s *Server) conn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	to := s.Timeouts.orDefault()
	r := &reader{r: conn}
	sender := &Sender{w: &writer{w: conn}, conn: conn, geometry: s.Geometry, timeouts: to}
	conn.SetDeadline(time.Now().Add(to.Hello))
	request, err := s.handshake(r, sender)
	if err != nil {
		s.Logger.Warn("refused a KV connection", "peer", conn.RemoteAddr().String(), "error", err)
		var foreign *errForeign
		if !errors.As(err, &foreign) {
			sendError(sender.w, terse.AsError(err))
		}
		return
	}
	conn.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alive := make(chan struct{})
	go func() { defer close(alive); cancel(s.listen(r, conn, to)) }()
	pinging := sender.keepAlive(ctx)
	done, err := s.Handler(ctx, request, sender)
	cancel(nil)
	<-pinging
	if err != nil {
		sender.finish(frameError, errorPayload(err))
	} else {
		sender.finish(frameDone, done)
	}
	// The peer closes once it has read the last frame; closing first, with its
	// pings unread, would reset the connection and could cost it that frame.
	defer time.AfterFunc(to.Idle, func() { conn.Close() }).Stop()
	<-alive
}

// handshake checks the peer's hello and reads its request.
func (s *Server) handshake(r *reader, sender *Sender) ([]byte, error) {
	b, err := expect(r, frameHello)
	if err != nil {
		return nil, err
	}
	peer, err := decodeHello(b)
	if err != nil {
		return nil, err
	}
	r.epoch, sender.w.epoch = peer.Epoch, peer.Epoch
	if err := s.Hello.match(peer); err != nil {
		return nil, err
	}
	mine, err := json.Marshal(s.Hello)
	if err != nil {
		return nil, err
	}
	if err := sender.w.write(frameHello, 0, 0, mine); err != nil {
		return nil, err
	}
	return expect(r, frameRequest)
}

// listen notices a peer that went away: its pings stop or its connection ends.
func (s *Server) listen(r *reader, conn net.Conn, to Timeouts) error {
	for {
		conn.SetReadDeadline(time.Now().Add(to.Idle))
		if _, err := expect(r, framePing); err != nil {
			return fmt.Errorf("lost the decode worker: %w", err)
		}
	}
}

// expect reads one frame that must be of the given kind.
func expect(r *reader, kind frameType) ([]byte, error) {
	h, crc, err := r.next()
	if err != nil {
		return nil, err
	}
	b, err := r.payload(h, crc)
	if err != nil {
		return nil, err
	}
	if h.kind == frameError {
		return nil, decodeError(b)
	}
	if h.kind != kind {
		return nil, fmt.Errorf("frame type %d came where type %d was due", h.kind, kind)
	}
	return b, nil
}

// Sender writes a prompt's KV frames. Safe for concurrent use with its own
// pings; Send itself is for one goroutine.
type Sender struct {
	mu       sync.Mutex
	w        *writer
	conn     net.Conn
	geometry *quant.Geometry
	timeouts Timeouts
	bytes    int64
	aborted  atomic.Bool
}

// Abort makes a Send that waits for the link, and every later one, fail.
func (s *Sender) Abort() {
	s.aborted.Store(true)
	s.conn.SetWriteDeadline(time.Now())
}

// Send writes parts of one layer straight out of the view's pages, which must
// not change until Send returns. It blocks while the link is busy.
func (s *Sender) Send(layer int, view *quant.View, parts []quant.Part) error {
	if len(parts) == 0 {
		return nil
	}
	bufs := [][]byte{encodeParts(parts)}
	n := 0
	for _, p := range parts {
		page := pageOf(view, p, layer)
		if page == nil {
			return fmt.Errorf("cannot send page %d of layer %d: it is not there (coded %v)", p.Page, layer, p.Coded)
		}
		for _, span := range s.geometry.PartSpans(p) {
			bufs = append(bufs, page[span.Off:span.Off+span.Len])
			n += span.Len
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += int64(n)
	s.conn.SetWriteDeadline(time.Time{}) // a slow link is not a dead one: the peer's pings tell
	if s.aborted.Load() {
		return errors.New("the transfer was given up")
	}
	if err := s.w.write(frameKV, uint16(layer), uint32(len(parts)), bufs...); err != nil {
		return fmt.Errorf("cannot send layer %d: %w", layer, err)
	}
	return nil
}

// Bytes is the KV payload sent so far.
func (s *Sender) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// keepAlive pings until ctx ends; the channel closes when it has stopped.
func (s *Sender) keepAlive(ctx context.Context) <-chan struct{} {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		t := time.NewTicker(s.timeouts.Ping)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				s.mu.Lock()
				s.w.write(framePing, 0, 0)
				s.mu.Unlock()
			}
		}
	}()
	return stopped
}

func (s *Sender) finish(kind frameType, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn.SetWriteDeadline(time.Now().Add(s.timeouts.Idle))
	s.w.write(kind, 0, 0, payload) // the peer that misses it sees the connection end
}

func errorPayload(err error) []byte {
	b, merr := json.Marshal(terse.AsError(err))
	if merr != nil || len(b) > maxControl {
		b = []byte(`{"Code":"internal_error","Message":"error too large to send"}`)
	}
	return b
}

func sendError(w *writer, err *terse.Error) {
	w.write(frameError, 0, 0, errorPayload(err)) // best effort: the peer sees the end either way
}

func decodeError(b []byte) error {
	var e terse.Error
	if err := json.Unmarshal(b, &e); err != nil || e.Code == "" {
		return fmt.Errorf("the peer sent an error that cannot be read (%d bytes)", len(b))
	}
	return &e
}
