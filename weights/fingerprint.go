package weights

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
)

// sampleBytes is the length of one sample of a tensor.
const sampleBytes = 4 << 10

// Fingerprint is the identity of the model's tensors, for workers to compare
// before they exchange KV: SHA-256 over every tensor in the order of names, of
// its name, type, shape and the first, middle and last 4 KiB of its data (all
// of it up to 12 KiB). A file of 16 GB takes milliseconds; a fine-tune changes
// every matrix and so shows. How tensors are spread over files does not matter,
// nor does what stands beside them: config.json and metadata are no part of it.
//
// It tells apart models mixed up by mistake. It is not a proof against
// tampering with the bytes between the samples.
func (s *Source) Fingerprint() [32]byte { return s.fingerprint() }

func (s *Source) sample() [32]byte {
	h := sha256.New()
	io.WriteString(h, "terse weights 1\n")
	for _, name := range s.names {
		e := s.entries[name]
		text(h, e.name)
		text(h, e.kind)
		number(h, len(e.shape))
		for _, d := range e.shape {
			number(h, d)
		}
		number(h, len(e.data))
		if len(e.data) <= 3*sampleBytes {
			h.Write(e.data)
			continue
		}
		mid := len(e.data)/2 - sampleBytes/2
		h.Write(e.data[:sampleBytes])
		h.Write(e.data[mid : mid+sampleBytes])
		h.Write(e.data[len(e.data)-sampleBytes:])
	}
	return [32]byte(h.Sum(nil))
}

func number(h hash.Hash, n int) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}

// text is length first, so that no two lists of names read the same.
func text(h hash.Hash, s string) {
	number(h, len(s))
	io.WriteString(h, s)
}
