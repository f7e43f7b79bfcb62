package transfer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
)

// Version is the protocol version; peers of another one are refused.
const Version = 1

// magic begins every frame.
const magic uint32 = 'T' | 'K'<<8 | 'V'<<16 | 'W'<<24

type frameType uint8

const (
	frameHello frameType = iota + 1
	frameRequest
	frameKV
	frameDone
	frameError
	framePing
)

// HeaderLen is the size of a frame header in bytes:
//
//	magic u32 | version u8 | type u8 | layer u16 | epoch u32 | seq u32 |
//	parts u32 | length u32 (of the payload, part table included) | crc u32
//
// all little endian. The CRC-32C covers the header before it and the payload.
const HeaderLen = 28

// Payload limits by kind: what a peer may make us read at most.
const (
	maxControl = 64 << 10 // Hello, Error, Ping
	maxRequest = 16 << 20 // Request and Done
	maxParts   = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is a frame's fixed part.
type header struct {
	kind   frameType
	layer  uint16
	epoch  uint32
	seq    uint32
	parts  uint32
	length uint32
	crc    uint32
}

func (h *header) encode() [HeaderLen]byte {
	var b [HeaderLen]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	b[4], b[5] = Version, byte(h.kind)
	le.PutUint16(b[6:], h.layer)
	le.PutUint32(b[8:], h.epoch)
	le.PutUint32(b[12:], h.seq)
	le.PutUint32(b[16:], h.parts)
	le.PutUint32(b[20:], h.length)
	le.PutUint32(b[24:], h.crc)
	return b
}

// errForeign means the peer does not speak this protocol at all.
type errForeign struct{ first []byte }

func (e *errForeign) Error() string {
	return fmt.Sprintf("the peer does not speak Terse's KV protocol (its first bytes are %q); is this the data port of a terse worker?", e.first)
}

func decodeHeader(b []byte) (header, error) {
	le := binary.LittleEndian
	if le.Uint32(b) != magic {
		return header{}, &errForeign{bytes.Clone(b[:8])}
	}
	h := header{
		kind: frameType(b[5]), layer: le.Uint16(b[6:]), epoch: le.Uint32(b[8:]), seq: le.Uint32(b[12:]),
		parts: le.Uint32(b[16:]), length: le.Uint32(b[20:]), crc: le.Uint32(b[24:]),
	}
	if b[4] != Version {
		return h, fmt.Errorf("the peer speaks version %d of the KV protocol, this worker version %d: run the same terse on both", b[4], Version)
	}
	return h, nil
}

// FrameSize is the size of the frame that begins with head (HeaderLen bytes),
// or 0 if that is none: what fault scripts count frames by.
func FrameSize(head []byte) int {
	h, err := decodeHeader(head)
	if err != nil {
		return 0
	}
	return HeaderLen + int(h.length)
}

// checkSize refuses lengths that the frame's kind cannot have.
func (h *header) checkSize(maxKV int) error {
	limit := maxControl
	switch h.kind {
	case frameRequest, frameDone:
		limit = maxRequest
	case frameKV:
		limit = maxKV
	case frameHello, frameError, framePing:
	default:
		return fmt.Errorf("unknown frame type %d", h.kind)
	}
	if int64(h.length) > int64(limit) {
		return fmt.Errorf("frame type %d of %d bytes is over its limit of %d", h.kind, h.length, limit)
	}
	return nil
}

// writer frames messages onto a connection. Not safe for concurrent use.
type writer struct {
	w     io.Writer
	epoch uint32
	seq   uint32
}

// write sends one frame whose payload is bufs, without copying them.
func (w *writer) write(kind frameType, layer uint16, parts uint32, bufs ...[]byte) error {
	h := header{kind: kind, layer: layer, epoch: w.epoch, seq: w.seq, parts: parts}
	for _, b := range bufs {
		h.length += uint32(len(b))
	}
	head := h.encode()
	crc := crc32.Update(0, castagnoli, head[:HeaderLen-4])
	for _, b := range bufs {
		crc = crc32.Update(crc, castagnoli, b)
	}
	binary.LittleEndian.PutUint32(head[HeaderLen-4:], crc)
	w.seq++
	all := make(net.Buffers, 0, len(bufs)+1)
	all = append(append(all, head[:]), bufs...)
	_, err := all.WriteTo(w.w)
	return err
}

// reader takes frames off a connection and checks sequence, epoch and CRC.
type reader struct {
	r     io.Reader
	epoch uint32
	seq   uint32
	maxKV int
}

// next reads a header and refuses what cannot be right before anything is
// allocated for it. An early end is io.ErrUnexpectedEOF, or io.EOF between
// frames.
func (r *reader) next() (header, uint32, error) {
	var b [HeaderLen]byte
	if n, err := io.ReadFull(r.r, b[:]); err != nil {
		if n >= 8 && binary.LittleEndian.Uint32(b[:]) != magic {
			return header{}, 0, &errForeign{bytes.Clone(b[:8])}
		}
		return header{}, 0, err
	}
	h, err := decodeHeader(b[:])
	if err != nil {
		return h, 0, err
	}
	if err := h.checkSize(r.maxKV); err != nil {
		return h, 0, err
	}
	if h.seq != r.seq {
		return h, 0, fmt.Errorf("frame %d came where frame %d was due", h.seq, r.seq)
	}
	if h.kind != frameHello && h.epoch != r.epoch {
		return h, 0, fmt.Errorf("frame of epoch %d in a transfer of epoch %d", h.epoch, r.epoch)
	}
	r.seq++
	return h, crc32.Update(0, castagnoli, b[:HeaderLen-4]), nil
}

// into reads the next len(dst) payload bytes and adds them to the checksum.
func (r *reader) into(dst []byte, crc uint32) (uint32, error) {
	if _, err := io.ReadFull(r.r, dst); err != nil {
		return 0, noEOF(err)
	}
	return crc32.Update(crc, castagnoli, dst), nil
}

// payload reads and verifies a whole payload.
func (r *reader) payload(h header, crc uint32) ([]byte, error) {
	b := make([]byte, h.length)
	crc, err := r.into(b, crc)
	if err != nil {
		return nil, err
	}
	return b, h.verify(crc)
}

func (h *header) verify(crc uint32) error {
	if crc != h.crc {
		return fmt.Errorf("checksum of frame %d is %08x, its header says %08x: the data was damaged on the way", h.seq, crc, h.crc)
	}
	return nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
