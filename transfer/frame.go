package transfer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/terse-llm/terse"
)

// Version is the protocol version; peers of another one are refused.
const Version = 4

// magic begins every frame.
const magic uint32 = 'T' | 'K'<<8 | 'V'<<16 | 'W'<<24

type frameType uint8

const (
	frameOpen      frameType = iota + 1 // decoder's nonce
	frameChallenge                      // prefiller's nonce
	frameHello                          // what a worker is
	framePing                           // still there
	frameError                          // of a transfer, or (lease 0) of the connection
	frameRequest                        // begin or resume a transfer
	frameAccept                         // it has begun; what will come
	frameJoin                           // this connection takes part in a transfer
	frameKV                             // page bytes
	frameDone                           // the prefill side's answer
	frameAck                            // parts that arrived
	frameCancel                         // the decoder wants no more
	frameTypes
)

// HeaderLen is the size of a frame header in bytes:
//
//	magic u32 | version u8 | type u8 | flags u16 | lease u64 | epoch u32 |
//	seq u32 | ranges u32 | length u32 (of the payload) | crc u32
//
// all little endian. The CRC-32C covers the header before it and the payload.
// With flagSealed a tag of tagLen bytes follows the payload.
const HeaderLen = 36

const crcAt = HeaderLen - 4

const flagSealed = 1

// Payload limits by kind: what a peer may make us read at most.
const (
	maxControl = 64 << 10 // whatever is not below
	maxRequest = 16 << 20 // Request, Done and Ack
	maxRanges  = 1 << 20
)

// header is a frame's fixed part.
type header struct {
	kind   frameType
	sealed bool
	lease  uint64
	epoch  uint32
	seq    uint32
	ranges uint32
	length uint32
	crc    uint32
}

func (h *header) encode(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	b[4], b[5], b[6], b[7] = Version, byte(h.kind), 0, 0
	if h.sealed {
		b[6] = flagSealed
	}
	le.PutUint64(b[8:], h.lease)
	le.PutUint32(b[16:], h.epoch)
	le.PutUint32(b[20:], h.seq)
	le.PutUint32(b[24:], h.ranges)
	le.PutUint32(b[28:], h.length)
	le.PutUint32(b[32:], h.crc)
}

// errForeign means the peer does not speak this protocol at all.
type errForeign struct{ first []byte }

func (e *errForeign) Error() string {
	if e.first[0] == 0x15 || e.first[0] == 0x16 { // an alert or a hello of TLS
		return "the peer speaks TLS and this side does not: give all workers --tls-cert, --tls-key and --tls-ca, or none"
	}
	return fmt.Sprintf("the peer does not speak Terse's KV protocol (its first bytes are %q); is this the data port of a terse worker?", e.first)
}

func decodeHeader(b []byte) (header, error) {
	le := binary.LittleEndian
	if le.Uint32(b) != magic {
		return header{}, &errForeign{bytes.Clone(b[:8])}
	}
	h := header{
		kind: frameType(b[5]), sealed: b[6]&flagSealed != 0, lease: le.Uint64(b[8:]), epoch: le.Uint32(b[16:]), seq: le.Uint32(b[20:]),
		ranges: le.Uint32(b[24:]), length: le.Uint32(b[28:]), crc: le.Uint32(b[32:]),
	}
	if b[4] != Version {
		return h, &terse.Error{Code: terse.CodeMismatch, Message: fmt.Sprintf("the peer speaks version %d of the KV protocol, this worker version %d: run the same terse on both", b[4], Version)}
	}
	if b[6]&^flagSealed != 0 || b[7] != 0 || h.kind == 0 || h.kind >= frameTypes {
		return h, fmt.Errorf("frame of type %d with flags %02x%02x means nothing", h.kind, b[7], b[6])
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
	size := HeaderLen + int(h.length)
	if h.sealed {
		size += tagLen
	}
	return size
}

// checkSize refuses lengths that the frame's kind cannot have.
func (h *header) checkSize(maxKV int) error {
	limit := maxControl
	switch h.kind {
	case frameRequest, frameDone, frameAck:
		limit = maxRequest
	case frameKV:
		limit = maxKV
	}
	if int64(h.length) > int64(limit) {
		return fmt.Errorf("frame type %d of %d bytes is over its limit of %d", h.kind, h.length, limit)
	}
	if h.ranges > maxRanges || int64(h.ranges)*rangeLen > int64(h.length) {
		return fmt.Errorf("frame type %d with %d ranges in %d bytes", h.kind, h.ranges, h.length)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A span of part numbers: parts [first, first+count).
type span struct{ first, count uint32 }

// rangeLen is the size of a span on the wire: first u32 | count u32.
const rangeLen = 8

func appendSpans(b []byte, spans []span) []byte {
	for _, s := range spans {
		b = binary.LittleEndian.AppendUint32(b, s.first)
		b = binary.LittleEndian.AppendUint32(b, s.count)
	}
	return b
}

// decodeSpans takes the table at the head of a payload, checked against limit
// parts in all: rising, not empty, none twice.
func decodeSpans(h *header, payload []byte, limit int) (spans []span, rest []byte, err error) {
	end := uint64(0)
	spans = make([]span, h.ranges)
	for i := range spans {
		s := span{binary.LittleEndian.Uint32(payload[i*rangeLen:]), binary.LittleEndian.Uint32(payload[i*rangeLen+4:])}
		if s.count == 0 || uint64(s.first) < end || uint64(s.first)+uint64(s.count) > uint64(limit) {
			return nil, nil, fmt.Errorf("a range of %d parts from %d on is out of order, or beyond the %d there are", s.count, s.first, limit)
		}
		end = uint64(s.first) + uint64(s.count)
		spans[i] = s
	}
	return spans, payload[int(h.ranges)*rangeLen:], nil
}
