package transfer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/transfer/mem"
	"github.com/terse-llm/terse/transfer/tcp"
)

// Who has no key, or another, gets nothing and is told so; with the key all is
// as without.
func TestClusterKey(t *testing.T) {
	g := geometry(t, "hq3")
	const n = 700
	src := fullView(g, n, noise(3))
	key, other := []byte("0123456789abcdef"), []byte("0123456789abcdeg")
	f := func(prefill, decode []byte, says string) {
		t.Helper()
		addr := peer{hello: hello(g), g: g, view: src, n: n, chunk: 64, key: prefill}.start(t)
		c := client(t, g)
		c.Key = decode
		dst := fullView(g, n, func([]byte) {})
		_, err := fetch(t.Context(), c, addr, "go", dst, n)
		if says == "" {
			if err != nil {
				t.Fatal(err)
			}
			sameHandover(t, g, n, src, dst)
			return
		}
		if terse.CodeOf(err) != terse.CodeUnauthorized || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
		for _, secret := range []string{"p1", "aa"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("a stranger learns %q: %v", secret, err)
			}
		}
	}
	f(key, key, "")
	f(key, nil, "shows none")
	f(nil, key, "this worker none")
	f(key, other, "another one")
}

// With a key, a changed byte with a matching CRC is found too, and so is a
// frame of another connection.
func TestSealedFrames(t *testing.T) {
	g := smallGeometry(t)
	up, down, err := newSeals([]byte("0123456789abcdef"), newNonce(), newNonce())
	if err != nil {
		t.Fatal(err)
	}
	sealed := func(s *seal) []byte {
		l, c := recorded(nil, g)
		l.wseal = s
		l.send(header{kind: frameAck, lease: 1, epoch: 1, ranges: 1}, appendSpans(nil, []span{{0, 9}}))
		return c.out.Bytes()
	}
	read := func(b []byte) error {
		l, _ := recorded(b, g)
		l.rseal = up
		_, _, err := l.read()
		return err
	}
	good := sealed(up)
	if err := read(good); err != nil {
		t.Fatal(err)
	}
	if err := read(sealed(down)); err != errSeal {
		t.Errorf("a frame of the other direction: %v", err)
	}
	if err := read(sealed(nil)); err != errSeal {
		t.Errorf("a frame without a tag: %v", err)
	}
	forged := bytes.Clone(good)
	l, c := recorded(nil, g) // the same frame about other parts, with a right CRC
	l.send(header{kind: frameAck, lease: 1, epoch: 1, ranges: 1}, appendSpans(nil, []span{{0, 8}}))
	copy(forged[HeaderLen:], c.out.Bytes()[HeaderLen:])
	if err := read(forged); err == nil {
		t.Error("a forged frame was taken")
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1
		if read(b) == nil {
			t.Errorf("byte %d can be changed", i)
		}
	}
}

// Faults meet sealed connections as they meet plain ones.
func TestSealedFaults(t *testing.T) {
	g := geometry(t, "hq3")
	const n = 700
	src := fullView(g, n, noise(9))
	key := []byte("0123456789abcdef")
	relay, err := mem.NewRelay(peer{hello: hello(g), g: g, view: src, n: n, chunk: 128, key: key}.start(t), framing, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	for _, text := range []string{"", "down conn 0 corrupt frame 4", "down conn 0 reorder frame 3", "down conn 0 duplicate frame 4", "up conn 0 kill frame 2"} {
		script, err := mem.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		relay.Set(script)
		c := client(t, g)
		c.Key = key
		dst := fullView(g, n, func([]byte) {})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, err := fetch(ctx, c, relay.Addr(), "go", dst, n); err != nil {
			t.Errorf("%s: %v", text, err)
		} else {
			sameHandover(t, g, n, src, dst)
		}
		cancel()
		c.Close()
	}
}

func TestKeysAreChecked(t *testing.T) {
	if err := CheckKey([]byte("short")); err == nil || !strings.Contains(err.Error(), "openssl") {
		t.Errorf("got %v", err)
	}
	if err := CheckKey(make([]byte, 32)); err != nil {
		t.Error(err)
	}
}

// Workers of another protocol version are told which.
func TestVersions(t *testing.T) {
	g := geometry(t, "hq3")
	addr := peer{hello: hello(g), g: g, view: fullView(g, 70, noise(1)), n: 70, chunk: 64}.start(t)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	old := make([]byte, 64)
	copy(old, "TKVW\x01\x01") // a Hello of version 1
	conn.Write(old)
	l := newLink(conn, calm.orDefault(), maxControl)
	h, b, err := l.read()
	if err != nil || h.kind != frameError || !strings.Contains(decodeError(b).Error(), "version 1") || !strings.Contains(decodeError(b).Error(), "worker version 4") {
		t.Errorf("frame %+v, %v", h, err)
	}
	// And the other way round.
	listener, err := tcp.Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if c, err := listener.Accept(); err == nil {
			c.Read(make([]byte, 10))
			c.Write(old)
			c.Close()
		}
	}()
	_, err = fetch(t.Context(), client(t, g), listener.Addr().String(), "go", fullView(g, 70, noise(1)), 70)
	if terse.CodeOf(err) != terse.CodeMismatch || !strings.Contains(err.Error(), "version 1") {
		t.Errorf("got %v", err)
	}
}

// Under TLS, which has no socket to writev to, all is as without.
func TestFetchOverTLS(t *testing.T) {
	g := geometry(t, "hq3")
	const n = 700
	src := fullView(g, n, noise(3))
	cert := selfSigned(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	peer{hello: hello(g), g: g, view: src, n: n, chunk: 64}.serve(t, l)
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	c := client(t, g)
	c.Dial = tcp.Dialer(&tls.Config{RootCAs: roots, ServerName: "worker"})
	dst := fullView(g, n, func([]byte) {})
	if _, err := fetch(t.Context(), c, l.Addr().String(), "go", dst, n); err != nil {
		t.Fatal(err)
	}
	sameHandover(t, g, n, src, dst)
	_, err = fetch(t.Context(), client(t, g), l.Addr().String(), "go", dst, n)
	if err == nil || !strings.Contains(err.Error(), "--tls-cert") {
		t.Errorf("without TLS: %v", err)
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"worker"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
