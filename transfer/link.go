package transfer

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terse-llm/terse"
)

// link is one connection between two workers. It outlives transfers: each side
// pings it, and a decoder keeps it warm for the next prompt.
type link struct {
	conn net.Conn
	to   Timeouts
	peer Hello

	wmu     sync.Mutex // writes, one frame at a time
	wseq    uint32
	wseal   *seal
	gather  bool   // frames must be one piece: sealed, or no socket to writev to
	scratch []byte // of gathered frames
	head    [HeaderLen]byte
	bufs    net.Buffers

	// One goroutine reads.
	greeted time.Time // by when the handshake must be over
	rseq    uint32
	rseal   *seal
	buf     []byte // the frame last read: header, payload, tag
	maxKV   int

	heard atomic.Int64 // time of the last frame, in ns
	once  sync.Once
	dead  chan struct{} // closed when the link is of no more use
	err   error         // why; set before dead is closed

	user atomic.Pointer[Fetch]  // decoder: whose KV frames are taken
	of   atomic.Pointer[Sender] // prefiller: whose frames are sent
}

func newLink(conn net.Conn, to Timeouts, maxKV int) *link {
	_, socket := conn.(*net.TCPConn)
	l := &link{conn: conn, to: to, maxKV: maxKV, gather: !socket, dead: make(chan struct{}), greeted: time.Now().Add(to.Hello)}
	l.heard.Store(time.Now().UnixNano())
	return l
}

// fail closes the link, once.
func (l *link) fail(err error) {
	l.once.Do(func() {
		l.err = err
		l.conn.Close()
		close(l.dead)
	})
}

func (l *link) alive() bool {
	select {
	case <-l.dead:
		return false
	default:
		return true
	}
}

// send writes one frame whose payload is bufs. Plain ones on a socket leave by
// writev from where they lie; others are copied once. It blocks while the link
// is busy; a link that failed is failed for good.
func (l *link) send(h header, bufs ...[]byte) error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	return l.write(h, bufs)
}

// ping sends a sign of life where the link has been free to.
func (l *link) ping(lease uint64, epoch uint32) {
	if l.wmu.TryLock() { // else a frame is being written, which says the same
		defer l.wmu.Unlock()
		l.conn.SetWriteDeadline(time.Now().Add(l.to.Idle))
		l.write(header{kind: framePing, lease: lease, epoch: epoch}, nil) // the reader sees a broken link
		l.conn.SetWriteDeadline(time.Time{})
	}
}

func (l *link) write(h header, bufs [][]byte) error {
	h.seq, h.sealed = l.wseq, l.wseal != nil
	for _, b := range bufs {
		h.length += uint32(len(b))
	}
	head := l.head[:]
	h.encode(head)
	crc := crc32.Update(0, castagnoli, head[:crcAt])
	l.wseq++
	var err error
	if !l.gather && !h.sealed {
		l.bufs = append(l.bufs[:0], head)
		for _, b := range bufs {
			crc = crc32.Update(crc, castagnoli, b)
			l.bufs = append(l.bufs, b)
		}
		binary.LittleEndian.PutUint32(head[crcAt:], crc)
		all := l.bufs // WriteTo eats the slice, not its array
		_, err = all.WriteTo(l.conn)
	} else {
		l.scratch = append(l.scratch[:0], head...)
		for _, b := range bufs {
			l.scratch = append(l.scratch, b...)
		}
		crc = crc32.Update(crc, castagnoli, l.scratch[HeaderLen:])
		binary.LittleEndian.PutUint32(l.scratch[crcAt:], crc)
		if h.sealed {
			l.scratch = l.wseal.tag(l.scratch, h.seq)
		}
		_, err = l.conn.Write(l.scratch)
	}
	if l.wseq == 0 && err == nil {
		err = errors.New("a connection's sequence numbers are used up")
	}
	if err != nil {
		l.fail(fmt.Errorf("cannot write to the peer: %w", err))
	}
	return err
}

// patience is until when the peer may be silent.
func (l *link) patience() time.Time {
	if l.peer.Layers == 0 { // a stranger until the hellos
		return l.greeted
	}
	return time.Now().Add(l.to.Idle)
}

// readPiece is how much may arrive between two looks at the time.
const readPiece = 128 << 10

// read takes one frame, verified. The payload is valid until the next read. A
// peer that is silent for Timeouts.Idle, or whose handshake takes more than
// Timeouts.Hello, is an error.
func (l *link) read() (header, []byte, error) {
	if len(l.buf) < HeaderLen {
		l.buf = make([]byte, 4<<10)
	}
	l.conn.SetReadDeadline(l.patience())
	if n, err := io.ReadFull(l.conn, l.buf[:HeaderLen]); err != nil {
		if n >= 8 && binary.LittleEndian.Uint32(l.buf) != magic {
			return header{}, nil, &errForeign{append([]byte{}, l.buf[:8]...)}
		}
		return header{}, nil, err
	}
	h, err := decodeHeader(l.buf)
	if err != nil {
		return h, nil, err
	}
	if err := h.checkSize(l.maxKV); err != nil {
		return h, nil, err
	}
	if l.peer.Layers == 0 && h.length > maxControl { // a stranger until the hellos
		return h, nil, fmt.Errorf("frame type %d of %d bytes before the hello", h.kind, h.length)
	}
	if h.seq != l.rseq {
		return h, nil, fmt.Errorf("frame %d came where frame %d was due", h.seq, l.rseq)
	}
	if l.rseal != nil && !h.sealed && h.kind != frameError {
		return h, nil, errSeal
	}
	payload, err := l.payload(&h)
	l.rseq++
	l.heard.Store(time.Now().UnixNano())
	return h, payload, err
}

func (l *link) payload(h *header) ([]byte, error) {
	end := HeaderLen + int(h.length)
	size := end
	if h.sealed {
		size += tagLen
	}
	if len(l.buf) < size {
		grown := make([]byte, size+size/4)
		copy(grown, l.buf[:HeaderLen])
		l.buf = grown
	}
	for at := HeaderLen; at < size; {
		n := min(size-at, readPiece)
		if _, err := io.ReadFull(l.conn, l.buf[at:at+n]); err != nil {
			return nil, noEOF(err)
		}
		if at += n; at < size {
			l.conn.SetReadDeadline(l.patience())
		}
	}
	crc := crc32.Update(0, castagnoli, l.buf[:crcAt])
	if crc = crc32.Update(crc, castagnoli, l.buf[HeaderLen:end]); crc != h.crc {
		return nil, fmt.Errorf("checksum of frame %d is %08x, its header says %08x: the data was damaged on the way", h.seq, crc, h.crc)
	}
	switch {
	case h.sealed && l.rseal != nil:
		if err := l.rseal.check(l.buf[:end], l.buf[end:size], h.seq); err != nil {
			return nil, err
		}
	case h.sealed, l.rseal != nil && l.peer.Layers != 0: // an error may come unsealed only before the hellos
		return nil, errSeal
	}
	return l.buf[HeaderLen:end], nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// expect reads one frame that must be of the given kind.
func (l *link) expect(kind frameType) (header, []byte, error) {
	h, b, err := l.read()
	if err != nil {
		return h, nil, err
	}
	if h.kind == frameError {
		return h, nil, decodeError(b)
	}
	if h.kind != kind {
		return h, nil, fmt.Errorf("frame type %d came where type %d was due", h.kind, kind)
	}
	return h, b, nil
}

func (l *link) sendError(lease uint64, epoch uint32, err error) {
	l.send(header{kind: frameError, lease: lease, epoch: epoch}, errorPayload(err)) // best effort: the peer sees the end either way
}

func errorPayload(err error) []byte {
	b, merr := json.Marshal(terse.AsError(err))
	if merr != nil || len(b) > maxControl {
		b = []byte(`{"Code":"internal_error","Message":"error too large to send"}`)
	}
	return b
}

func decodeError(b []byte) error {
	var e terse.Error
	if err := json.Unmarshal(b, &e); err != nil || e.Code == "" {
		return fmt.Errorf("the peer sent an error that cannot be read (%d bytes)", len(b))
	}
	return &e
}

// keepAlive pings until the link is dead.
func (l *link) keepAlive() {
	t := time.NewTicker(l.to.Ping)
	defer t.Stop()
	for {
		select {
		case <-l.dead:
			return
		case <-t.C:
			l.ping(0, 0)
		}
	}
}
