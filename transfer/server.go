package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// Handler serves one request: it has the prompt's KV written through s, hands
// the answer to s.Finish, and calls s.Stop before the pages are reused. ctx
// ends when the decoder cancels or is lost; an error it returns reaches the
// decoder.
type Handler func(ctx context.Context, request []byte, s *Sender) error

// Server is the prefill side of the wire.
type Server struct {
	Hello        Hello
	Geometry     *quant.Geometry
	Handler      Handler
	Key          []byte // of the cluster; nil = none
	Timeouts     Timeouts
	Logger       *slog.Logger
	MaxConns     int           // beyond it a peer is told CodeOverloaded; 0 means 1024
	MaxTransfers int           // at once, likewise; 0 means 256
	MaxTokens    int           // of a prompt; 0 means a million
	Drain        time.Duration // how long requests may go on after Serve's ctx ended

	mu        sync.Mutex
	transfers map[uint64]*Sender
	links     map[*link]bool
	closing   bool
	running   sync.WaitGroup // handlers
}

func orDefault(v, d int) int {
	if v == 0 {
		return d
	}
	return v
}

// Serve accepts until ctx ends, then closes the listener and idle connections,
// lets what runs finish within Drain, cancels the rest and waits for it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.mu.Lock()
	s.transfers, s.links = map[uint64]*Sender{}, map[*link]bool{}
	s.mu.Unlock()
	running, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { s.close(); l.Close() })
	defer stop()
	slots := make(chan struct{}, orDefault(s.MaxConns, 1024))
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel(errShuttingDown)
	for {
		conn, err := l.Accept()
		if err != nil && ctx.Err() != nil {
			s.drain(cancel)
			return nil
		}
		if err != nil {
			s.close()
			s.drain(cancel)
			return fmt.Errorf("cannot accept KV connections on %s: %w", l.Addr(), err)
		}
		select {
		case slots <- struct{}{}:
		default:
			s.turnAway(conn)
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			s.conn(running, conn)
		})
	}
}

// close takes no more requests and ends the connections that carry none.
func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for l := range s.links {
		if l.of.Load() == nil {
			l.fail(errShuttingDown)
		}
	}
}

var errShuttingDown = &terse.Error{Code: terse.CodeWorkerLost, Message: "the prefill worker shuts down"}

// drain waits for the handlers, cancels those that Drain is not enough for, and
// ends all connections.
func (s *Server) drain(cancel context.CancelCauseFunc) {
	timer := time.AfterFunc(s.Drain, func() { cancel(errShuttingDown) })
	defer timer.Stop()
	s.running.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.links {
		l.fail(errShuttingDown)
	}
}

func (s *Server) turnAway(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(time.Second))
	l := newLink(conn, s.Timeouts.orDefault(), maxControl)
	l.sendError(0, 0, &terse.Error{Code: terse.CodeOverloaded, Message: "too many KV connections at once"})
	l.fail(errShuttingDown)
}

// conn is the life of one connection.
func (s *Server) conn(ctx context.Context, conn net.Conn) {
	l := newLink(conn, s.Timeouts.orDefault(), maxControl)
	s.mu.Lock()
	s.links[l] = true
	if s.closing {
		l.fail(errShuttingDown)
	}
	s.mu.Unlock()
	err := l.welcome(s.Hello, s.Key)
	if err != nil && l.alive() {
		s.Logger.Warn("refused a KV connection", "peer", conn.RemoteAddr().String(), "error", err)
		var foreign *errForeign
		if !errors.As(err, &foreign) {
			l.wseal = nil
			l.sendError(0, 0, asTransfer(err))
			lingerClose(conn)
		}
	}
	if err == nil {
		var pinging sync.WaitGroup
		pinging.Go(l.keepAlive)
		err = s.listen(ctx, l)
		l.fail(err)
		pinging.Wait()
	}
	l.fail(err)
	if t := l.of.Load(); t != nil {
		t.lost(l)
	}
	s.mu.Lock()
	delete(s.links, l)
	s.mu.Unlock()
}

// asTransfer gives an error that has no code one that says to try again.
func asTransfer(err error) error {
	if terse.CodeOf(err) != terse.CodeInternal {
		return err
	}
	return &terse.Error{Code: terse.CodeTransfer, Message: err.Error()}
}

// lingerClose lets the peer read our last words: closing with its bytes unread
// would reset the connection and could cost it them.
func lingerClose(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
	conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
	io.CopyN(io.Discard, conn, 64<<10)
}

// listen takes the decoder's frames until the connection ends.
func (s *Server) listen(ctx context.Context, l *link) error {
	for {
		h, payload, err := l.read()
		if err != nil {
			return err
		}
		t := l.of.Load()
		mine := t != nil && t.lease == h.lease
		switch h.kind {
		case framePing:
		case frameRequest:
			if err := s.request(ctx, l, &h, payload); err != nil {
				l.sendError(h.lease, h.epoch, asTransfer(err))
			}
		case frameJoin:
			if err := s.join(l, &h); err != nil {
				l.sendError(h.lease, h.epoch, err)
			}
		case frameAck:
			if !mine {
				continue // of a transfer that has ended
			}
			parts, _, err := decodeSpans(&h, payload, t.plan.count())
			if err != nil {
				return err
			}
			t.ack(parts)
		case frameCancel:
			if mine {
				t.abort(errCancelled)
			}
		case frameError:
			return decodeError(payload)
		default:
			return fmt.Errorf("frame type %d from a decode worker", h.kind)
		}
	}
}

var errCancelled = &terse.Error{Code: terse.CodeCancelled, Message: "the decode worker cancelled"}

// requestHead is what follows the ranges of a Request: tokens u32 | window u64 |
// flags u32. The request itself follows it.
const requestHead = 16

// flagApart asks for second planes as parts of their own, after the others;
// flagGoOn for the rest of a transfer that is known, or nothing: second planes fit
// only the top planes that were coded with them.
const (
	flagApart = 1
	flagGoOn  = 2
)

// request begins a transfer, or goes on with one that lost its connection.
func (s *Server) request(ctx context.Context, l *link, h *header, payload []byte) error {
	if len(payload) < int(h.ranges)*rangeLen+requestHead {
		return fmt.Errorf("a request of %d bytes", len(payload))
	}
	head := payload[int(h.ranges)*rangeLen:]
	tokens, window := int(binary.LittleEndian.Uint32(head)), int64(binary.LittleEndian.Uint64(head[4:]))
	flags := binary.LittleEndian.Uint32(head[12:])
	if flags&^(flagApart|flagGoOn) != 0 {
		return fmt.Errorf("request flags %x mean nothing", flags)
	}
	if limit := orDefault(s.MaxTokens, 1<<20); tokens < 1 || tokens > limit || window < 1 {
		return &terse.Error{Code: terse.CodeInvalid, Message: fmt.Sprintf("a prompt of %d tokens (the most is %d) with a window of %d bytes", tokens, limit, window)}
	}
	request := append([]byte{}, head[requestHead:]...)
	apart := flags&flagApart != 0
	t, fresh, err := s.transferOf(l, h, tokens, flags, window)
	if err != nil {
		return err
	}
	if t.plan.apart != (apart && t.plan.g.HasSecond() && !t.plan.g.Format.Selects()) {
		return fmt.Errorf("transfer %x was begun with other flags than %x", h.lease, flags)
	}
	have, _, err := decodeSpans(h, payload, t.plan.count())
	if err == nil && t.plan.n != tokens {
		err = fmt.Errorf("transfer %x has %d tokens, not %d", h.lease, t.plan.n, tokens)
	}
	if err != nil {
		if fresh {
			s.forget(t)
		}
		return err
	}
	l.of.Store(t)
	t.attach(l, h.epoch, have, window)
	if fresh {
		go s.run(ctx, t, request)
	}
	accept := binary.LittleEndian.AppendUint32(nil, uint32(t.plan.count()))
	accept = binary.LittleEndian.AppendUint64(accept, uint64(t.plan.total()))
	l.send(header{kind: frameAccept, lease: h.lease, epoch: h.epoch}, accept) // the reader sees a broken connection
	return nil
}

// transferOf finds a transfer or registers a new one, which holds a place in
// running until forget.
func (s *Server) transferOf(l *link, h *header, tokens int, flags uint32, window int64) (t *Sender, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.transfers[h.lease]; t != nil {
		if t.peer != l.peer.Worker || !t.open(h.epoch) {
			return nil, false, &terse.Error{Code: terse.CodeTransfer, Message: fmt.Sprintf("epoch %d of transfer %x is over", h.epoch, h.lease)}
		}
		return t, false, nil
	}
	switch {
	case h.lease == 0:
		return nil, false, errors.New("a transfer needs a lease")
	case flags&flagGoOn != 0:
		return nil, false, &terse.Error{Code: terse.CodeWorkerLost, Message: fmt.Sprintf("worker %s does not know transfer %x any more", s.Hello.Worker, h.lease)}
	case s.closing:
		return nil, false, errShuttingDown
	case len(s.transfers) >= orDefault(s.MaxTransfers, 256):
		return nil, false, &terse.Error{Code: terse.CodeOverloaded, Message: "too many KV transfers at once on worker " + s.Hello.Worker}
	}
	t = newSender(s.Geometry, tokens, flags&flagApart != 0, h.lease, window, l.to)
	t.peer = l.peer.Worker
	s.transfers[h.lease] = t
	s.running.Add(1)
	return t, true, nil
}

// run is the life of one transfer.
func (s *Server) run(ctx context.Context, t *Sender, request []byte) {
	defer s.forget(t)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.mu.Lock()
	t.cancel = cancel
	if t.err != nil { // lost before it began
		cancel(t.err)
	}
	t.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { t.abort(context.Cause(ctx)) }) // wakes who waits in Finish
	defer stop()
	if err := s.Handler(ctx, request, t); err != nil {
		t.mu.Lock()
		lanes, epoch := append([]*link{}, t.lanes...), t.epoch
		if t.err != nil && !errors.Is(t.err, errStopped) {
			err = t.err // what came first is why
		}
		t.mu.Unlock()
		if len(lanes) > 0 {
			lanes[0].sendError(t.lease, epoch, err)
		}
	}
	t.Stop()
}

// forget ends a transfer's books. Its connections are free for others, or end
// where the server does.
func (s *Server) forget(t *Sender) {
	defer s.running.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.transfers, t.lease)
	for l := range s.links {
		if l.of.CompareAndSwap(t, nil) && s.closing {
			l.fail(errShuttingDown)
		}
	}
}

func (s *Server) join(l *link, h *header) error {
	s.mu.Lock()
	t := s.transfers[h.lease]
	s.mu.Unlock()
	if t == nil || t.peer != l.peer.Worker {
		return fmt.Errorf("there is no transfer %x to join", h.lease)
	}
	l.of.Store(t)
	return t.join(l, h.epoch)
}

// Transfers is the number of transfers that hold pages now.
func (s *Server) Transfers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.transfers)
}

// Wedged is nil, or says that a transfer has had bytes to move and moved none
// for longer than its connection's silence would be borne.
func (s *Server) Wedged() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := 2 * s.Timeouts.orDefault().Idle
	for lease, t := range s.transfers {
		if d := t.stuck(time.Now()); d > limit {
			return fmt.Errorf("KV transfer %x to worker %s has moved nothing for %v", lease, t.peer, d.Round(time.Second))
		}
	}
	return nil
}
