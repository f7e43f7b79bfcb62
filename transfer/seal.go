package transfer

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// nonceLen is what each side adds to the keys of a connection.
const nonceLen = 32

// tagLen is the size of a sealed frame's tag.
const tagLen = 16

// minKey is the shortest cluster key that is taken, in bytes.
const minKey = 16

// CheckKey refuses cluster keys that could be guessed.
func CheckKey(key []byte) error {
	if len(key) < minKey {
		return fmt.Errorf("the cluster key has %d bytes, at least %d are needed: make one with 'openssl rand -hex 32'", len(key), minKey)
	}
	return nil
}

// seal authenticates the frames of one direction of one connection: GMAC
// (AES-256-GCM over additional data alone), the sequence number as its nonce.
// Every connection and direction has a key of its own.
type seal struct{ aead cipher.AEAD }

// newSeals derives the keys of a connection, of the decoder's and of the
// prefiller's frames, by HKDF-SHA256.
func newSeals(key, decoder, prefiller []byte) (up, down *seal, err error) {
	salt := append(append([]byte{}, decoder...), prefiller...)
	derive := func(info string) (*seal, error) {
		k, err := hkdf.Key(sha256.New, key, salt, info, 32)
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(k)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		return &seal{aead}, err
	}
	if up, err = derive("terse kv 2 decoder"); err != nil {
		return nil, nil, err
	}
	down, err = derive("terse kv 2 prefiller")
	return up, down, err
}

func sealNonce(seq uint32) []byte {
	var n [12]byte
	binary.LittleEndian.PutUint32(n[8:], seq)
	return n[:]
}

// tag appends the tag of a frame (header and payload) to it.
func (s *seal) tag(frame []byte, seq uint32) []byte {
	return s.aead.Seal(frame, sealNonce(seq), nil, frame)
}

var errSeal = errors.New("a frame's tag is wrong: the peer has another cluster key, or somebody changed the frame")

func (s *seal) check(frame, tag []byte, seq uint32) error {
	if _, err := s.aead.Open(nil, sealNonce(seq), tag, frame); err != nil {
		return errSeal
	}
	return nil
}

func newNonce() []byte {
	b := make([]byte, nonceLen)
	rand.Read(b) // never fails
	return b
}
