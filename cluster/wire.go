package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/terse-llm/terse"
)

// Every payload but member records begins with two bytes: protocol and kind.
// Numbers are uvarints, floats 32-bit little endian (they carry infinities,
// which JSON does not), lists are counted. A token takes 1 to 3 bytes for any
// vocabulary below two million, so that 128K tokens stay below half of the
// default NATS limit of 1 MiB.
const (
	kindJob     byte = 1
	kindOutput  byte = 2 // number, output
	kindAlive   byte = 3 // the number that the next output will have
	kindUnknown byte = 4 // the worker has no such job
	kindKeep    byte = 5 // the submitter still listens
	kindCancel  byte = 6
)

const (
	headerBytes    = 2
	minScoredBytes = 1 + 4 + 1
	minTopBytes    = 1 + 4
)

var errShort = errors.New("it ends early")

// reader takes values from a payload. After the first error all reads return
// zero values; check err once at the end.
type reader struct {
	data []byte
	err  error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.data = nil
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.data = r.data[n:]
	return v
}

// count reads the length of a list whose elements take at least size bytes,
// so that a caller may allocate for it.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.data)/size) {
		r.fail(fmt.Errorf("a list claims %d elements with %d bytes left", n, len(r.data)))
		return 0
	}
	return int(n)
}

func (r *reader) bytes() []byte {
	n := r.count(1)
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) token() terse.Token {
	v := r.uvarint()
	if v > math.MaxInt32 {
		r.fail(fmt.Errorf("token %d is no vocabulary id", v))
		return 0
	}
	return terse.Token(v)
}

func (r *reader) tokens() []terse.Token {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	tokens := make([]terse.Token, n)
	for i := range tokens {
		tokens[i] = r.token()
	}
	return tokens
}

func (r *reader) logprob() terse.Logprob {
	t := r.token()
	if len(r.data) < 4 {
		r.fail(errShort)
		return terse.Logprob{}
	}
	bits := binary.LittleEndian.Uint32(r.data)
	r.data = r.data[4:]
	return terse.Logprob{Token: t, Logprob: math.Float32frombits(bits)}
}

func (r *reader) scored() []terse.Scored {
	n := r.count(minScoredBytes)
	if n == 0 {
		return nil
	}
	list := make([]terse.Scored, n)
	for i := range list {
		list[i].Logprob = r.logprob()
		top := r.count(minTopBytes)
		if top == 0 {
			continue
		}
		list[i].Top = make([]terse.Logprob, top)
		for k := range list[i].Top {
			list[i].Top[k] = r.logprob()
		}
	}
	return list
}

// end is the reader's error, or one about bytes that nobody asked for.
func (r *reader) end() error {
	if r.err == nil && len(r.data) > 0 {
		return fmt.Errorf("%d bytes are left over", len(r.data))
	}
	return r.err
}

func appendTokens(b []byte, tokens []terse.Token) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(len(tokens)))
	for _, t := range tokens {
		if t < 0 {
			return nil, fmt.Errorf("token %d is no vocabulary id", t)
		}
		b = binary.AppendUvarint(b, uint64(t))
	}
	return b, nil
}

func appendLogprob(b []byte, l terse.Logprob) ([]byte, error) {
	if l.Token < 0 {
		return nil, fmt.Errorf("token %d is no vocabulary id", l.Token)
	}
	b = binary.AppendUvarint(b, uint64(l.Token))
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(l.Logprob)), nil
}

func appendScored(b []byte, list []terse.Scored) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		var err error
		if b, err = appendLogprob(b, s.Logprob); err != nil {
			return nil, err
		}
		b = binary.AppendUvarint(b, uint64(len(s.Top)))
		for _, l := range s.Top {
			if b, err = appendLogprob(b, l); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// header takes a payload apart into its kind and the rest.
func header(data []byte) (byte, []byte, error) {
	if len(data) < headerBytes {
		return 0, nil, fmt.Errorf("cannot read a message of %d bytes", len(data))
	}
	if data[0] != protocol {
		return 0, nil, &terse.Error{Code: terse.CodeMismatch, Message: fmt.Sprintf(
			"cannot read a message of cluster protocol %d, this process speaks %d: run the same version of terse everywhere", data[0], protocol)}
	}
	return data[1], data[headerBytes:], nil
}

// aliveMessage says how many outputs were published before it.
func aliveMessage(next uint64) []byte {
	return binary.AppendUvarint([]byte{protocol, kindAlive}, next)
}
